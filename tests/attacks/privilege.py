"""Becoming more than nobody, and reaching the deep parts of the kernel."""

from tests.attacks.attack import Attack

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
if answer != -1 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
    escaped(f"{{answer}} {{ctypes.get_errno()}}")
"""

ATTACKS = [
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
]
