"""Taking more than one's share, each limit by its own reason."""

from tests.attacks.attack import Attack, under

MiB = 1 << 20

ATTACKS = under(
    "limits",
    [
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
            # On a busy machine gVisor's own kernel may be refused a thread first.
            gvisor_ends=frozenset({("failed", "processes"), ("stopped", "timeout")}),
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
            limits={
                "processes": 24,
                "memory_bytes": 96 * MiB,
                "wall_seconds": 3,
                "grace_seconds": 0.2,
            },
        ),
    ],
)


def fills(folder: str, what: str) -> str:
    return f"""
        made = 0
        try:
            for number in range(400_000):
                {what.format(folder=folder)}
                made += 1
            escaped(made)
        except OSError as error:
            assert error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE), error
        """


EMPTY = "os.close(os.open({folder!r} + f'/{{number}}', os.O_CREAT | os.O_WRONLY))"

ATTACKS += under(
    "limits",
    [
        Attack(
            f"{name} without end",
            f"""
            held = []
            try:
                for number in range(5000):
                    {code}
                escaped()
            except OSError:
                pass
            """,
            bare=False,
            limits={"open_files": 256},
        )
        for name, code in (
            ("pipes", "held.append(os.pipe())"),
            ("timers", "held.append(libc.timerfd_create(0, 0)); held[-1] >= 0 or os.dup(-1)"),
            ("local sockets", "held.append(socket.socketpair())"),
            ("events", "held.append(os.eventfd(0))"),
            ("waiting lists", "import select; held.append(select.epoll())"),
            ("handles of processes", "held.append(os.pidfd_open(os.getpid()))"),
        )
    ]
    + [
        Attack(
            "memory in what sockets hold",
            """
            pairs = []
            while True:
                try:
                    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                except OSError:
                    break
                pair[0].setblocking(False)
                pairs.append(pair)
                try:
                    while True:
                        pair[0].send(b"x" * 65536)
                except BlockingIOError:
                    pass
            raise SystemExit(1)
            """,
            bare=False,
            # What sockets hold is the kernel's memory, and counted as the job's.
            ends=frozenset({("failed", "memory"), ("failed", "exit")}),
            limits={"memory_bytes": 96 * MiB, "open_files": 2048},
        ),
        Attack(
            "memory in what pipes hold",
            """
            import fcntl
            held = []
            try:
                for _ in range(500):
                    read, write = os.pipe()
                    held.append((read, write))
                    fcntl.fcntl(write, 1031, 1 << 20)
                    os.set_blocking(write, False)
                    os.write(write, b"x" * (1 << 20))
            except OSError:
                pass
            raise SystemExit(1)
            """,
            bare=False,
            ends=frozenset({("failed", "memory"), ("failed", "exit")}),
            limits={"memory_bytes": 96 * MiB, "open_files": 2048},
        ),
        Attack(
            "memory that is locked",
            """
            import mmap
            held = []
            while True:
                held.append(mmap.mmap(-1, 8 << 20))
                held[-1].write(b"x" * (8 << 20))
                libc.mlockall(3)
            """,
            bare=False,
            ends=("failed", "memory"),
            limits={"memory_bytes": 96 * MiB},
        ),
        Attack(
            "memory in tables of pages",
            """
            import mmap
            held = []
            while True:
                view = mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                held.append(view)
                for at in range(0, 1 << 30, 2 << 20):
                    view[at] = 1
            """,
            bare=False,
            ends=("failed", "memory"),
            limits={"memory_bytes": 96 * MiB, "wall_seconds": 60},
        ),
        Attack(
            "memory in temporary files",
            """
            file = open("/tmp/fill", "wb", buffering=0)
            while True:
                file.write(b"x" * (1 << 20))
            """,
            bare=False,
            ends=("failed", "memory"),
            limits={"memory_bytes": 96 * MiB, "tmp_bytes": 1 << 30},
        ),
        Attack(
            "memory by children of a child, each below the limit",
            """
            def grow(depth):
                held = b"x" * (12 << 20)
                if depth and os.fork() == 0:
                    grow(depth - 1)
                time.sleep(1.5)
                os._exit(1)
            grow(16)
            """,
            bare=False,
            ends=frozenset({("failed", "memory"), ("failed", "exit")}),
            gvisor_ends=frozenset({("failed", "memory"), ("failed", "exit")}),
            limits={"memory_bytes": 96 * MiB},
        ),
        Attack(
            "the disk by empty temporary files",
            fills("/tmp", EMPTY),
            bare=False,
            limits={"wall_seconds": 90, "memory_bytes": 1024 * MiB},
            slow=True,
        ),
        Attack(
            "the disk by directories in output",
            """
            for number in range(10_000):
                os.mkdir(OUTPUT + f"/{number}")
            """,
            bare=False,
            ends=("failed", "output-limit"),
            limits={"output_inodes": 100},
        ),
        Attack(
            "the disk by a file without a name",
            """
            file = open(OUTPUT + "/x", "wb", buffering=0)
            os.unlink(OUTPUT + "/x")
            while True:
                file.write(b"x" * (1 << 20))
            """,
            bare=False,
            ends=("failed", "output-limit"),
            limits={"output_bytes": 4 * MiB},
        ),
        Attack(
            "the disk by room set aside",
            """
            file = os.open(OUTPUT + "/x", os.O_CREAT | os.O_WRONLY)
            os.posix_fallocate(file, 0, 1 << 30)
            escaped()
            """,
            bare=False,
            ends=frozenset({("failed", "output-limit"), ("failed", "exit")}),
            limits={"output_bytes": 4 * MiB},
        ),
        Attack(
            "the dead that nobody buries",
            """
            while True:
                if os.fork() == 0:
                    os._exit(0)
            """,
            bare=False,
            ends=("failed", "processes"),
            limits={"processes": 24},
        ),
        Attack(
            "processes born faster than they are counted",
            """
            while True:
                pid = os.fork()
                if pid:
                    os._exit(0)
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            """,
            bare=False,
            ends=None,  # the first one ends at once, and all of them with it
        ),
        Attack(
            "time without end, in a program that ends its own clock",
            """
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            while True:
                pass
            """,
            bare=False,
            ends=("stopped", "timeout"),
            limits={"wall_seconds": 0.6, "grace_seconds": 0.2},
        ),
        Attack(
            "time without end, asleep in a pipe",
            """
            os.mkfifo("/tmp/fifo")
            os.open("/tmp/fifo", os.O_RDONLY)
            """,
            bare=False,
            ends=("stopped", "timeout"),
            limits={"wall_seconds": 0.6, "grace_seconds": 0.2},
        ),
        Attack(
            "words without end",
            """
            stop = time.monotonic() + 1
            while time.monotonic() < stop:
                os.write(1, b"x" * 65536)
                os.write(2, b"y" * 65536)
            """,
            bare=False,
            limits={"log_bytes": 100_000},
        ),
    ],
)
