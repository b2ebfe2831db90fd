"""Seeing, signalling, tracing and outliving others."""

from tests.attacks.attack import Attack, under

ATTACKS = under(
    "processes",
    [
        Attack(
            "seeing a process of the host",
            """
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    if TARGET["bystander_word"] in open(f"/proc/{name}/cmdline").read():
                        escaped()
                except OSError:
                    pass
        """,
        ),
        Attack(
            "signalling a process of the host",
            """
        try:
            os.kill(TARGET["bystander"], 0)
            escaped()
        except OSError:
            pass
        """,
        ),
        Attack(
            "the environment of process 1",
            """
        try:
            if b"SECRET" in open("/proc/1/environ", "rb").read():
                escaped()
        except OSError:
            pass
        """,
            bare=False,
        ),
        Attack(
            "the command line of process 1",
            """
        text = open("/proc/1/cmdline", "rb").read()
        paths = [os.fsencode(path) for path in TARGET["host_paths"]]
        if b"--bind" in text or any(path in text for path in paths):
            escaped()
        """,
            bare=False,
        ),
        Attack(
            "the descriptors of process 1",
            """
        try:
            for name in os.listdir("/proc/1/fd"):
                target = os.readlink(f"/proc/1/fd/{name}")
                if target.startswith("socket") or (
                        target.startswith("/") and "memfd" not in target and "/dev" not in target):
                    escaped(target)
        except OSError:
            pass
        """,
            bare=False,
        ),
        Attack(
            "being traced by one's child",
            """
        PTRACE_TRACEME = 0
        in_child(lambda: libc.ptrace(PTRACE_TRACEME, 0, 0, 0) == 0)
        """,
        ),
        Attack(
            "reading another process's memory",
            """
        pid = os.fork()
        if pid == 0:
            time.sleep(30)
        buffer = ctypes.create_string_buffer(8)
        local = struct.pack("PN", ctypes.addressof(buffer), 8)
        remote = struct.pack("PN", ctypes.addressof(buffer), 8)
        if libc.process_vm_readv(pid, local, 1, remote, 1, 0) == 8:
            escaped()
        os.kill(pid, signal.SIGKILL)
        """,
        ),
        Attack(
            "taking another process's descriptor",
            """
        pid = os.fork()
        if pid == 0:
            time.sleep(30)
        try:
            if call(438, os.pidfd_open(pid), 0, 0) is not None:
                escaped()
        except OSError:
            pass
        os.kill(pid, signal.SIGKILL)
        """,
        ),
        Attack(
            "running before everybody else",
            """
        def priority():
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
            return True
        in_child(priority)
        in_child(lambda: os.setpriority(os.PRIO_PROCESS, 0, -20) is None)
        """,
            own_kernel=True,
        ),
        Attack(
            "outliving the sandbox",
            """
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    for number in range(1, 32):
                        try:
                            signal.signal(number, signal.SIG_IGN)
                        except (OSError, ValueError):
                            pass
                    while True:
                        time.sleep(1)
                os._exit(0)
        """,
            bare=False,
        ),
        Attack(
            "killing everything in reach",
            """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(-1, signal.SIGTERM)
        os.kill(1, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
            bare=False,
            ends=("failed", "exit"),
        ),
        Attack(
            "stopping oneself for ever",
            "os.kill(os.getpid(), signal.SIGSTOP)",
            bare=False,
            ends=("stopped", "timeout"),
            limits={"wall_seconds": 0.6, "grace_seconds": 0.2},
        ),
        Attack(
            "not hearing the signal to end",
            """
        for number in range(1, 32):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        os.fork()
        while True:
            time.sleep(1)
        """,
            bare=False,
            ends=("stopped", "timeout"),
            limits={"wall_seconds": 0.6, "grace_seconds": 0.2},
        ),
    ],
)

ATTACKS += under(
    "processes",
    [
        *[
            Attack(
                f"{name} a process of the host",
                f"""
                pid = TARGET["bystander"]
                try:
                    {code}
                    escaped()
                except (OSError, AssertionError):
                    pass
                """,
                bare=bare,
            )
            for name, code, bare in (
                ("the memory of", "open(f'/proc/{pid}/mem', 'rb')", True),
                ("the environment of", "open(f'/proc/{pid}/environ', 'rb').read()", True),
                ("the descriptors of", "os.listdir(f'/proc/{pid}/fd')", True),
                ("the root of", "os.listdir(f'/proc/{pid}/root')", True),
                ("the limits of", "resource.prlimit(pid, resource.RLIMIT_NOFILE)", True),
                ("the processors of", "os.sched_getaffinity(pid)", True),
                ("the priority of", "os.getpriority(os.PRIO_PROCESS, pid)", True),
                ("a handle of", "os.pidfd_open(pid)", True),
                ("the namespaces of", "os.readlink(f'/proc/{pid}/ns/net')", True),
                (
                    "tracing",
                    "assert libc.ptrace(16, pid, 0, 0) == 0; libc.ptrace(17, pid, 0, 0)",
                    False,
                ),
                ("the clock of", "time.clock_gettime(~pid << 3 | 2)", True),
            )
        ],
        Attack(
            "every process by its number",
            """
            # Inside there are the program and process 1 alone.
            for pid in range(2, 5000):
                if pid == os.getpid():
                    continue
                try:
                    os.kill(pid, 0)
                    escaped(pid)
                    break
                except ProcessLookupError:
                    pass
            """,
            bare=False,
        ),
        Attack(
            "ending process 1",
            """
            for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV):
                try:
                    os.kill(1, number)
                except OSError:
                    pass
            time.sleep(0.05)
            os.kill(1, 0)
            """,
            bare=False,
            gvisor_ends=("failed", "exit"),  # there it is process 1 itself
        ),
        Attack(
            "a sibling instead of a child",
            """
            # CLONE_PARENT: the child's parent would be whoever started us.
            pid = call(56, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0)
            if pid == 0:
                time.sleep(60)
            """,
            bare=False,
            ends=None,
        ),
        Attack(
            "a group of orphans that stops, continues and ignores",
            """
            for _ in range(6):
                if os.fork() == 0:
                    os.setsid()
                    if os.fork():
                        os._exit(0)
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    signal.signal(signal.SIGHUP, signal.SIG_IGN)
                    while True:
                        if os.fork():
                            os._exit(0)
                        os.setsid()
                        time.sleep(0.001)
            time.sleep(0.2)
            """,
            bare=False,
            # What it makes of processes may be more than the machine gives gVisor's kernel.
            gvisor_ends=frozenset({("finished", "exit"), ("failed", "processes")}),
        ),
        Attack(
            "ending because the parent's end was asked for",
            """
            PR_SET_PDEATHSIG = 1
            libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
            if os.fork() == 0:
                os.setsid()
                while True:
                    time.sleep(1)
            """,
            bare=False,
        ),
    ],
)
