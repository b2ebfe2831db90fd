"""Reading what was not given, and writing where nothing may be written."""

from tests.attacks.attack import Attack


def reads(path: str) -> str:
    return f"""
        try:
            if open({path}, "rb").read(16):
                escaped()
        except OSError:
            pass
        """


def writes(path: str) -> str:
    return f"""
        try:
            with open({path}, "ab"):
                escaped()
        except OSError:
            pass
        """


ATTACKS = [
    Attack("a file of the host", reads('TARGET["secret"]')),
    Attack(
        "a file of the host through process 1",
        reads('"/proc/1/root" + TARGET["secret"]'),
        bare=False,
    ),
    Attack("a file of the host upwards", reads('"../" * 30 + TARGET["secret"]')),
    Attack(
        "a file of the host through a link",
        """
        os.symlink(TARGET["secret"], OUTPUT + "/link")
        try:
            if open(OUTPUT + "/link", "rb").read(1):
                escaped()
        except OSError:
            pass
        """,
    ),
    Attack("the password file", reads('"/etc/shadow"')),
    Attack("the machine's identity", reads('"/etc/machine-id"'), bare=False),
    Attack("the boot's identity", reads('"/proc/sys/kernel/random/boot_id"')),
    Attack(
        "the kernel's command line",
        """
        try:
            if TARGET["cmdline"] in open("/proc/cmdline").read():
                escaped()
        except OSError:
            pass
        """,
    ),
    Attack("the kernel's symbols", reads('"/proc/kallsyms"')),
    Attack("a home", 'escaped() if os.path.exists("/root") or os.path.exists("/home") else None'),
    Attack(
        "control groups",
        """
        for top, folders, files in os.walk("/sys/fs/cgroup"):
            if folders or files:
                escaped()
                break
        """,
    ),
    Attack("a disk", reads('TARGET["disk"]'), bare=False),
    Attack("the memory of the machine", reads('"/dev/mem"'), bare=False),
    Attack("the log of the kernel", reads('"/dev/kmsg"'), bare=False),
    Attack("write a file of the host", writes('TARGET["secret"]')),
    Attack("write the submission", writes('CODE + "/train.py"')),
    Attack("write the data", writes('TARGET["data"] + "/labels.csv"')),
    Attack("write the interpreter", writes("os.__file__")),
    Attack("write beside the root", writes('"/planted-by-attack"'), bare=False),
    Attack("write into etc", writes('"/etc/planted-by-attack"'), bare=False),
    Attack("write the kernel's settings", writes('"/proc/sys/kernel/core_pattern"')),
    Attack("press a magic key", writes('"/proc/sysrq-trigger"'), bare=False),
    Attack("write the control groups", writes('"/sys/fs/cgroup/cgroup.procs"'), bare=False),
    Attack(
        "make the data writable by mode",
        """
        try:
            os.chmod(TARGET["data"] + "/labels.csv", 0o666)
            escaped()
        except OSError:
            pass
        """,
    ),
    Attack(
        "make the data writable by mounting it again",
        """
        remount_bind = ctypes.c_ulong(32 | 4096)
        if libc.mount(b"none", b"/data/mini", None, remount_bind, None) == 0:
            escaped()
        """,
        bare=False,
    ),
    Attack(
        "a device of one's own",
        """
        try:
            os.mknod(OUTPUT + "/zero", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
            if open(OUTPUT + "/zero", "rb").read(1):
                escaped()
        except OSError:
            pass
        """,
    ),
    Attack(
        "another root",
        "in_child(lambda: os.chroot(OUTPUT) is None)",
    ),
    Attack(
        "a file by its handle",
        """
        handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
        mount_id = ctypes.c_int()
        if libc.name_to_handle_at(-100, b"/usr/bin/env", handle, ctypes.byref(mount_id), 0) == 0:
            escaped()
        """,
        bare=False,
    ),
    Attack(
        "which pages of a shared file others have read",
        """
        import mmap
        with open(TARGET["data"] + "/labels.csv", "rb") as file:
            view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)
        where = ctypes.c_char.from_buffer_copy(b"x")
        table = ctypes.create_string_buffer(16)
        if call(27, id(view) & ~4095, 4096, table) is not None:
            escaped()
        """,
        bare=False,
    ),
    Attack(
        "what others do, counted from second to second",
        """
        for name in ("interrupts", "softirqs", "vmstat", "diskstats", "zoneinfo", "pressure/cpu"):
            try:
                if open("/proc/" + name).read(1):
                    escaped(name)
            except OSError:
                pass
        """,
    ),
    Attack(
        "being told who opens the data",
        """
        import fcntl
        for command, argument in ((fcntl.F_NOTIFY, fcntl.DN_ACCESS), (fcntl.F_SETLEASE, 0)):
            try:
                fcntl.fcntl(os.open(TARGET["data"], os.O_RDONLY), command, argument)
                escaped()
            except OSError:
                pass
        """,
    ),
    Attack(
        "watching who opens the data",
        """
        descriptor = libc.inotify_init()
        if descriptor >= 0 and libc.inotify_add_watch(
                descriptor, TARGET["data"].encode(), 0xFFF) >= 0:
            escaped()
        """,
    ),
]
