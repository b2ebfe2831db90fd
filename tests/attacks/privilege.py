"""Becoming more than nobody, and reaching the deep parts of the kernel."""

from tests.attacks.attack import Attack, under

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

# Name -> (x86_64 number, arguments, safe to show bare). The numbers are asm/unistd_64.h's.
CALLS = {
    "io_uring_setup": (425, "8, ctypes.create_string_buffer(120)", False),
    "bpf": (
        321,
        "0, ctypes.create_string_buffer(struct.pack('IIII', 2, 4, 4, 1) + bytes(112)), 72",
        False,
    ),
    "keyctl": (250, "0, -3, 1", True),
    "add_key": (248, "b'user', b'glovebox-attack', b'x', 1, -1", True),
    "perf_event_open": (
        298,
        "ctypes.create_string_buffer(struct.pack('IIQ', 1, 112, 0) + bytes(96)), 0, -1, -1, 0",
        False,
    ),
    "userfaultfd": (323, "1", False),
    "personality": (135, "0x0040000", True),
    "setns": (308, "os.open('/proc/self/ns/net', os.O_RDONLY), 0", True),
    "memfd_secret": (447, "0", False),
    "fanotify_init": (300, "0, 0", False),
    "seccomp": (317, "2, 0, ctypes.byref(ctypes.c_uint(0x7fff0000))", True),
    "modify_ldt": (154, "0, ctypes.create_string_buffer(64), 64", False),
    "iopl": (172, "3", False),
    "syslog": (103, "10, 0, 0", True),
    "shmget": (29, "0, 4096, 0o1600", True),
    "semget": (64, "0, 1, 0o1600", True),
    "msgget": (68, "0, 0o1600", True),
    "mq_open": (240, "b'glovebox-attack', 0o102, 0o600, 0", True),
    "fsopen": (430, "b'tmpfs', 0", True),
    "open_tree": (428, "-100, b'/', 1", True),
    "kcmp": (312, "os.getpid(), os.getpid(), 0, 0, 0", False),
    "statmount": (
        457,
        "ctypes.create_string_buffer(32), ctypes.create_string_buffer(512), 512, 0",
        False,
    ),
    "memfd_create": (319, "b'x', 0", True),
    "vmsplice": (278, "1, struct.pack('PN', 0, 0), 0, 0", True),
    "move_mount": (429, "-100, b'/none', -100, b'/none', 0", False),
    "mount_setattr": (442, "-100, b'/', 0, ctypes.create_string_buffer(32), 32", True),
    "request_key": (249, "b'user', b'none', None, -1", False),
    "kexec_file_load": (320, "-1, -1, 0, None, 0", False),
    "quotactl": (179, "0x800001, 0, 0, 0", False),
    "io_setup": (206, "8, ctypes.byref(ctypes.c_ulong(0))", True),
    "sync": (162, "", True),
    "clock_adjtime": (305, "0, ctypes.create_string_buffer(208)", True),
    "fanotify_mark": (301, "-1, 1, 0, -100, b'/'", False),
    "inotify_init1": (294, "0", True),
    "mincore": (27, "0, 0, 0", False),
    "cachestat": (
        451,
        "0, ctypes.create_string_buffer(16), ctypes.create_string_buffer(40), 0",
        False,
    ),
    "process_madvise": (440, "-1, 0, 0, 20, 0", False),
    "migrate_pages": (256, "os.getpid(), 0, 0, 0", False),
    "move_pages": (279, "os.getpid(), 0, 0, 0, 0, 0", False),
    "mbind": (237, "0, 0, 0, 0, 0, 0", False),
    "remap_file_pages": (216, "0, 0, 0, 0, 0", False),
    "landlock_create_ruleset": (444, "0, 0, 1", False),
    "lookup_dcookie": (212, "0, 0, 0", False),
    "open_by_handle_at": (304, "-1, ctypes.create_string_buffer(16), 0", False),
    "listmount": (458, "0, 0, 0, 0", False),
    "fspick": (433, "-100, b'/', 0", True),
    "openat2": (437, "-100, b'/', struct.pack('QQQ', 0, 0, 0), 24", False),
    "setxattr": (188, "OUTPUT.encode(), b'user.x', b'x', 1, 0", False),
    "ioprio_set": (251, "1, 0, 0", False),
    "sched_setattr": (
        314,
        "0, struct.pack('IIQiIQQQ', 48, 6, 0, 0, 0, 10**6, 10**7, 10**7), 0",
        False,
    ),
    "syncfs": (306, "0", False),
    "vhangup": (153, "", False),
    "lsm_set_self_attr": (460, "0, 0, 0, 0", False),
    # Never shown bare: they would change the machine.
    "settimeofday": (164, "struct.pack('qq', 0, 0), 0", False),
    "clock_settime": (227, "0, struct.pack('qq', 0, 0)", False),
    "sethostname": (170, "b'owned', 5", False),
    "reboot": (169, "0xfee1dead, 672274793, 0, 0", False),
    "kexec_load": (246, "0, 0, 0, 0", False),
    "init_module": (175, "b'x', 1, b''", False),
    "delete_module": (176, "b'x', 0", False),
    "swapon": (167, "b'/tmp/x', 0", False),
    "acct": (163, "0", False),
    "pivot_root": (155, "b'/tmp', b'/tmp'", False),
    "umount2": (166, "b'/proc', 2", False),
}

REFUSALS = """
# Refused means: not at all. A failure for another reason would have reached the kernel's code.
answer = libc.syscall(ctypes.c_long({number}), {arguments})
if answer != -1 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS, errno.ENOTSUP):
    escaped(f"{{answer}} {{ctypes.get_errno()}}")
"""

ATTACKS = under(
    "calls",
    [
        *[
            Attack(
                f"the system call {name}",
                REFUSALS.format(number=number, arguments=arguments or "0"),
                bare=bare,
            )
            for name, (number, arguments, bare) in CALLS.items()
        ],
        Attack(
            "a user namespace",
            f"in_child(lambda: libc.unshare({CLONE_NEWUSER}) == 0)",
        ),
        Attack(
            "a user namespace by clone",
            f"""
        pid = call(56, {CLONE_NEWUSER} | signal.SIGCHLD, 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        if pid is not None:
            escaped()
        """,
        ),
        Attack(
            "a user namespace by clone3",
            f"""
        arguments = struct.pack("QQQQQQQQ", {CLONE_NEWUSER}, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
        pid = call(435, ctypes.create_string_buffer(arguments), 64)
        if pid == 0:
            os._exit(0)
        if pid is not None:
            escaped()
        """,
        ),
        Attack(
            "a network namespace by clone",
            f"""
        pid = call(56, {CLONE_NEWNET} | signal.SIGCHLD, 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        if pid is not None:
            escaped()
        """,
        ),
        Attack(
            "becoming root",
            """
        for become in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0)):
            try:
                become()
                escaped()
            except OSError:
                pass
        if os.getuid() == 0 or os.geteuid() == 0:
            escaped()
        """,
        ),
        Attack(
            "any capability",
            """
        rows = dict(row.split(":", 1) for row in open("/proc/self/status"))
        kinds = ("CapPrm", "CapEff", "CapBnd", "CapAmb", "CapInh")
        if any(int(rows.get(kind, "0"), 16) for kind in kinds):
            escaped()
        """,
        ),
        Attack(
            "rights from a set-user-id program",
            """
        PR_GET_NO_NEW_PRIVS = 39
        if libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
            escaped()
        for directory, _, names in os.walk("/usr/bin"):
            for name in names:
                if os.stat(os.path.join(directory, name)).st_mode & (stat.S_ISUID | stat.S_ISGID):
                    escaped(name)
        """,
            bare=False,
        ),
        Attack(
            "an ambient capability",
            """
        PR_CAP_AMBIENT, RAISE = 47, 2
        if libc.prctl(PR_CAP_AMBIENT, RAISE, 21, 0, 0) == 0:
            escaped()
        """,
            bare=False,
        ),
        Attack(
            "settings of the kernel, of one's own namespaces too",
            """
        for directory, _, names in os.walk("/proc/sys"):
            for name in names:
                try:
                    os.close(os.open(os.path.join(directory, name), os.O_WRONLY))
                    escaped(name)
                except OSError:
                    pass
        """,
        ),
        Attack(
            "a terminal of one's own",
            """
        try:
            os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
            escaped()
        except OSError:
            pass
        """,
            own_kernel=True,
        ),
        Attack(
            "typing on the terminal",
            """
        import fcntl, termios
        for descriptor in (0, 1, 2):
            try:
                fcntl.ioctl(descriptor, termios.TIOCSTI, b"x")
                escaped()
            except OSError:
                pass
        try:
            os.open("/dev/tty", os.O_RDWR)
            escaped()
        except OSError:
            pass
        """,
            bare=False,
        ),
        Attack(
            "other devices",
            """
        known = {"null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx", "shm", "fd",
                 "stdin", "stdout", "stderr", "core", "console"}
        if set(os.listdir("/dev")) - known:
            escaped()
        """,
            own_kernel=True,
        ),
    ],
)

NAMESPACES = {
    "mount": 0x00020000,
    "control group": 0x02000000,
    "name": 0x04000000,
    "message": 0x08000000,
    "process": 0x20000000,
    "network": 0x40000000,
    "time": 0x00000080,
}
# prctl's number, and arguments that would be accepted outside.
PRCTLS = {
    "a filter of one's own": "22, 1, 0, 0, 0",
    "memory laid out anew": "35, 1, 4096, 0, 0",
    "a tracer allowed": "0x59616D61, -1, 0, 0, 0",
    "rights kept over a change of user": "8, 1, 0, 0, 0",
    "secure bits": "28, 1, 0, 0, 0",
    "calls answered by oneself": "59, 1, 0, 0, ctypes.create_string_buffer(8)",
    "speculation loosened": "53, 0, 2, 0, 0",
    "killed later than others": "33, 0, 0, 0, 0",
    "dumps of memory allowed": "4, 1, 0, 0, 0",
}

ATTACKS += under(
    "rights",
    [
        *[
            Attack(
                f"a {name} namespace of one's own",
                f"in_child(lambda: libc.unshare({flag}) == 0)",
            )
            for name, flag in NAMESPACES.items()
        ],
        *[
            Attack(
                f"joining the {name} namespace of process 1",
                f"""
                try:
                    descriptor = os.open("/proc/1/ns/{name}", os.O_RDONLY)
                except OSError:
                    descriptor = -1
                in_child(lambda: libc.setns(descriptor, 0) == 0)
                """,
                bare=False,
            )
            for name in ("net", "pid", "user", "uts")
        ],
        *[
            Attack(
                f"prctl: {name}",
                f"""
                libc.prctl.argtypes = None
                if call(157, {arguments}) is not None:
                    escaped()
                """,
                bare=False,
                own_kernel=name == "killed later than others",
            )
            for name, arguments in PRCTLS.items()
        ],
        Attack(
            "a set-user-id program of one's own",
            """
            import shutil
            path = "/tmp/id-glovebox"
            shutil.copy("/usr/bin/env", path)
            os.chmod(path, 0o6755)
            code = "import os; print(os.geteuid() != os.getuid(), os.path.exists('/x'))"
            said = subprocess.run([path, sys.executable, "-c", code], capture_output=True)
            if said.stdout.startswith(b"True"):
                escaped()
            os.unlink(path)
            """,
            bare=False,
        ),
        Attack(
            "a process that is not dumpable becoming traceable",
            """
            pid = os.fork()
            if pid == 0:
                time.sleep(20)
            PTRACE_SEIZE = 0x4206
            if libc.ptrace(PTRACE_SEIZE, pid, 0, 0) == 0:
                escaped()
            os.kill(pid, signal.SIGKILL)
            """,
        ),
        Attack(
            "another group",
            """
            for become in (lambda: os.setgroups([0]), lambda: os.setgid(42), lambda: os.setuid(42)):
                try:
                    become()
                    escaped()
                except OSError:
                    pass
            """,
        ),
        Attack(
            "a program in memory without a file",
            """
            # execveat of a nameless file: allowed, but nothing that a file could not do.
            descriptor = os.open(sys.executable, os.O_RDONLY)
            pid = os.fork()
            if pid == 0:
                os.execve(descriptor, ["python", "-c", "import os; os.setuid(0)"], {})
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
                escaped()
            """,
        ),
    ],
)
