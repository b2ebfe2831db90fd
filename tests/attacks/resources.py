"""Taking more than one's share, each limit by its own reason."""

from tests.attacks.attack import Attack

MiB = 1 << 20

ATTACKS = [
    Attack(
        "memory without end",
        """
        held = []
        while True:
            held.append(b"x" * (8 << 20))
        """,
        bare=False,
        ends=("failed", "memory"),
        limits={"memory_bytes": 96 * MiB},
    ),
    Attack(
        "memory without end, in many processes",
        """
        for _ in range(4):
            if os.fork() == 0:
                held = b"x" * (60 << 20)
                time.sleep(0.5)
                os._exit(0)
        for _ in range(4):
            os.wait()
        raise SystemExit(1)
        """,
        bare=False,
        ends=("failed", "memory"),
        limits={"memory_bytes": 96 * MiB},
    ),
    Attack(
        "memory by shared memory files",
        """
        try:
            with open("/dev/shm/fill", "wb", buffering=0) as file:
                for _ in range(64):
                    file.write(b"x" * (1 << 20))
            escaped()
        except OSError:
            pass
        """,
        bare=False,
        limits={"shm_bytes": 4 * MiB},
    ),
    Attack(
        "the disk by temporary files",
        """
        try:
            with open("/tmp/fill", "wb", buffering=0) as file:
                for _ in range(64):
                    file.write(b"x" * (1 << 20))
            escaped()
        except OSError:
            pass
        """,
        limits={"tmp_bytes": 4 * MiB},
    ),
    Attack(
        "the disk by output",
        """
        with open(OUTPUT + "/model.safetensors", "wb", buffering=0) as file:
            while True:
                file.write(b"x" * (1 << 20))
        """,
        bare=False,
        ends=("failed", "output-limit"),
        limits={"output_bytes": 4 * MiB},
    ),
    Attack(
        "the disk by output, tidied up before the end",
        """
        try:
            with open(OUTPUT + "/model.safetensors", "wb", buffering=0) as file:
                while True:
                    file.write(b"x" * (1 << 20))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        """,
        bare=False,
        limits={"output_bytes": 4 * MiB},
    ),
    Attack(
        "the disk by empty files",
        """
        for number in range(10_000):
            open(OUTPUT + f"/{number}", "w").close()
        """,
        bare=False,
        ends=("failed", "output-limit"),
        limits={"output_inodes": 100},
    ),
    Attack(
        "processes without end",
        """
        while True:
            os.fork()
        """,
        bare=False,
        ends=("failed", "processes"),
        limits={"processes": 24},
    ),
    Attack(
        "processes without end, never giving up",
        """
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """,
        bare=False,
        ends=("stopped", "timeout"),
        limits={"processes": 24, "wall_seconds": 1, "grace_seconds": 0.2},
    ),
    Attack(
        "threads without end",
        """
        while True:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        """,
        bare=False,
        ends=("failed", "processes"),
        limits={"processes": 24},
    ),
    Attack(
        "descriptors without end",
        """
        held = []
        try:
            for _ in range(4000):
                held.append(os.open("/dev/null", os.O_RDONLY))
            escaped()
        except OSError:
            pass
        """,
        bare=False,
        limits={"open_files": 256},
    ),
    Attack(
        "memory in a file without a name or a limit",
        """
        # What a sandbox reads from is a file in memory, on no sized file system.
        os.ftruncate(0, 1 << 30)
        os.lseek(0, 0, os.SEEK_SET)
        while True:
            os.write(0, b"x" * (1 << 20))
        """,
        bare=False,
        ends=("failed", "memory"),
        limits={"memory_bytes": 96 * MiB},
    ),
    Attack(
        "more than one's share of the processors",
        """
        began = time.monotonic()
        for _ in range(4):
            if os.fork() == 0:
                while time.monotonic() < began + 1:
                    pass
                os._exit(0)
        for _ in range(4):
            os.wait()
        used = os.times()
        # A period's allowance may have been saved up, and one be overdrawn.
        if used.children_user + used.children_system > 0.5 * (time.monotonic() - began) + 0.2:
            escaped()
        """,
        bare=False,
        own_kernel=True,  # gVisor counts the time in which it is held back itself
        limits={"cpus": 0.5},
    ),
    Attack(
        "limits raised again",
        """
        for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_RTPRIO):
            try:
                resource.setrlimit(kind, (1 << 19, 1 << 19))
                escaped(kind)
            except (OSError, ValueError):
                pass
        """,
    ),
    Attack(
        "a core dump",
        """
        # 1 means not even to a handler that reads from a pipe, see core(5).
        if resource.getrlimit(resource.RLIMIT_CORE)[1] not in (0, 1):
            escaped()
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
            escaped()
        except (OSError, ValueError):
            pass
        """,
    ),
    Attack(
        "time without end",
        "time.sleep(3600)",
        bare=False,
        ends=("stopped", "timeout"),
        limits={"wall_seconds": 0.5, "grace_seconds": 0.2},
    ),
    Attack(
        "everything at once",
        """
        held = []
        def fill(path):
            try:
                with open(path, "wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * (1 << 20))
            except OSError:
                pass
        for path in ("/tmp/a", "/dev/shm/a", OUTPUT + "/a"):
            try:
                threading.Thread(target=fill, args=(path,)).start()
            except RuntimeError:
                pass
        for _ in range(100):
            try:
                os.fork()
            except OSError:
                pass
        while True:
            held.append(b"x" * (4 << 20))
            print("x" * 100_000)
        """,
        bare=False,
        ends=None,
        limits={"processes": 24, "memory_bytes": 96 * MiB, "wall_seconds": 3, "grace_seconds": 0.2},
    ),
]
