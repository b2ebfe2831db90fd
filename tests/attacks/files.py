"""Reading what was not given, and writing where nothing may be written."""

from tests.attacks.attack import Attack, under


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


ATTACKS = under(
    "files",
    [
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
        Attack(
            "a home", 'escaped() if os.path.exists("/root") or os.path.exists("/home") else None'
        ),
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
    ],
)

ATTACKS += under(
    "files",
    [
        Attack(
            f"a file of the host through {name}",
            reads(f'{path!r} + TARGET["secret"]'),
            bare=bare,
        )
        for name, path, bare in (
            ("its own root", "/proc/self/root", True),
            ("its thread's root", "/proc/thread-self/root", True),
            ("its working directory", "/proc/self/cwd/../../../../../../..", True),
            ("process 1's working directory", "/proc/1/cwd/../../../..", False),
            ("a directory above the data", "/data/mini/../..", False),
        )
    ]
    + [
        Attack(
            "a race of links",
            """
            os.mkdir(OUTPUT + "/real")
            open(OUTPUT + "/real/" + os.path.basename(TARGET["secret"]), "w").close()
            stop = time.monotonic() + 0.3
            def swap():
                while time.monotonic() < stop:
                    for to in ("real", os.path.dirname(TARGET["secret"])):
                        os.symlink(to, OUTPUT + "/new"); os.rename(OUTPUT + "/new", OUTPUT + "/way")
            thread = threading.Thread(target=swap); thread.start()
            while time.monotonic() < stop:
                try:
                    text = open(OUTPUT + "/way/" + os.path.basename(TARGET["secret"])).read()
                except OSError:
                    continue
                if text:
                    escaped()
                    break
            thread.join()
            """,
        ),
        Attack(
            "out of a mount by renaming the directory one stands in",
            """
            os.makedirs("/tmp/a-glovebox/b/c", exist_ok=True)
            os.chdir("/tmp/a-glovebox/b/c")
            try:
                os.rename("/tmp/a-glovebox/b/c", OUTPUT + "/c")
            except OSError:
                pass
            for _ in range(40):
                os.chdir("..")
            try:
                if open("." + TARGET["secret"]).read():
                    escaped()
            except OSError:
                pass
            """,
        ),
        Attack(
            "a path through a descriptor of a directory",
            """
            top = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
            try:
                inner = os.open("../" * 9 + TARGET["secret"].lstrip("/"), os.O_RDONLY, dir_fd=top)
                if os.read(inner, 1):
                    escaped()
            except OSError:
                pass
            """,
        ),
        Attack(
            "files in places that are often forgotten",
            """
            for path in ("/etc/hostname", "/etc/resolv.conf", "/etc/ssh", "/etc/ssl/private",
                         "/etc/environment", "/var/lib", "/var/log", "/run/secrets",
                         "/var/run/secrets/kubernetes.io", "/root/.ssh", "/srv", "/media", "/boot",
                         "/lib/modules", "/dev/disk", "/dev/mapper", "/dev/kvm", "/dev/mqueue",
                         "/dev/loop-control", "/dev/nvidiactl", "/dev/dri", "/dev/hugepages"):
                if os.path.exists(path):
                    escaped(path)
            """,
        ),
        Attack(
            "the kernel's own files and devices",
            """
            for path in ("/sys/class", "/sys/kernel", "/sys/firmware", "/sys/fs", "/dev/fuse",
                         "/dev/net/tun", "/dev/ptmx"):
                if os.path.exists(path):
                    escaped(path)
            """,
            own_kernel=True,
        ),
    ],
)

ATTACKS += under(
    "writing",
    [
        Attack(
            f"{name} the data",
            f"""
            path = TARGET["data"] + "/labels.csv"
            try:
                {code}
                escaped()
            except OSError:
                pass
            """,
            bare=False,  # other probes read the same file
        )
        for name, code in (
            ("truncate", "os.truncate(path, 0)"),
            ("remove", "os.unlink(path)"),
            ("rename", "os.rename(path, path + '.old')"),
            ("replace", "os.symlink('/dev/null', TARGET['data'] + '/planted')"),
            ("give another owner to", "os.chown(path, os.getuid(), os.getgid())"),
            ("give other times to", "os.utime(path, (1, 1))"),
            ("open a nameless file beside", "os.open(TARGET['data'], os.O_TMPFILE | os.O_RDWR)"),
            ("make a directory in", "os.mkdir(TARGET['data'] + '/planted')"),
            ("make a second name of", "os.link(path, OUTPUT + '/labels.csv')"),
            ("map and write", "import mmap; f = os.open(path, os.O_RDWR); mmap.mmap(f, 1)[0] = 0"),
            (
                "open through /proc and write",
                "f = os.open(path, os.O_RDONLY); os.open(f'/proc/self/fd/{f}', os.O_WRONLY)",
            ),
        )
    ]
    + [
        Attack(
            "pages of a shared file through one's own memory",
            """
            import mmap
            path = TARGET["data"] + "/labels.csv"
            with open(path, "rb") as file:
                before = file.read()
                view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
                for row in open("/proc/self/maps"):
                    if row.rstrip().endswith("labels.csv"):
                        start = int(row.split("-")[0], 16)
                        try:
                            memory = os.open("/proc/self/mem", os.O_RDWR)
                            os.pwrite(memory, b"X", start)
                        except OSError:
                            pass
            if open(path, "rb").read() != before:
                escaped()
            """,
            bare=False,
        ),
        Attack(
            "attributes of a file on the host's disk",
            """
            import fcntl
            FS_IOC_SETFLAGS, FS_IOC_GETVERSION, FICLONE = 0x40086602, 0x80087601, 0x40049409
            file = os.open(TARGET["data"] + "/labels.csv", os.O_RDONLY)
            for request in (FS_IOC_SETFLAGS, FS_IOC_GETVERSION, FICLONE, 0x80086601, 0xC020660B):
                try:
                    fcntl.ioctl(file, request, bytearray(4096))
                    escaped(hex(request))
                except OSError as error:
                    if error.errno not in (errno.ENOTTY, errno.EPERM, errno.ENOSYS,
                                           errno.EOPNOTSUPP, errno.EBADF):
                        escaped(error.errno)
            """,
            bare=False,
        ),
        Attack(
            "a program on a file system that must hold none",
            """
            for place in ("/dev/shm", OUTPUT):
                path = place + "/program-glovebox"
                open(path, "w").write("#!/bin/sh\\nexit 7\\n"); os.chmod(path, 0o755)
                try:
                    if subprocess.run([path], check=False).returncode == 7:
                        escaped(place)
                except OSError:
                    pass
                os.unlink(path)
            """,
            own_kernel=True,
        ),
    ],
)

# name -> what is written to it; each is a file of the process itself.
OWN_FILES = {
    "uid_map": "0 1000 1",
    "setgroups": "allow",
    "loginuid": "0",
    "oom_score_adj": "-1000",
    "autogroup": "-20",
    "attr/current": "unconfined",
    "timens_offsets": "monotonic 1000 0",
    "projid_map": "0 0 1",
}

ATTACKS += under(
    "tables",
    [
        *[
            Attack(
                f"writing {name} of one's own",
                f"""
                try:
                    descriptor = os.open("/proc/self/{name}", os.O_WRONLY)
                    os.write(descriptor, {text!r}.encode())
                    escaped()
                except OSError:
                    pass
                """,
                bare=False,
                own_kernel=name == "oom_score_adj",
            )
            for name, text in OWN_FILES.items()
        ],
        Attack(
            "addresses of physical memory",
            """
            try:
                with open("/proc/self/pagemap", "rb") as file:
                    address = id(file) // 4096
                    file.seek(address * 8)
                    if int.from_bytes(file.read(8), "little") & ((1 << 55) - 1):
                        escaped()
            except OSError:
                pass
            """,
            own_kernel=True,
        ),
        *[
            Attack(f"the table {path}", reads(repr("/proc/" + path)), bare=bare)
            for path, bare in (
                ("1/mem", False),
                ("1/stack", False),
                ("kcore", False),
                ("kpageflags", False),
                ("vmallocinfo", False),
                ("slabinfo", False),
                ("modules", False),
                ("keys", False),
                ("locks", False),
                ("timer_list", False),
                ("crypto", False),
                ("partitions", True),
                ("config.gz", False),
                ("sys/kernel/pty/nr", False),
            )
        ],
        Attack(
            "counters of files, names and load of the whole machine",
            """
            for name in ("loadavg", "sys/fs/file-nr", "sys/fs/inode-nr", "sys/fs/inode-state",
                         "sys/fs/dentry-state", "cgroups", "schedstat"):
                try:
                    if open("/proc/" + name).read(1):
                        escaped(name)
                except OSError:
                    pass
            """,
            own_kernel=True,
        ),
    ],
)

ATTACKS += under(
    "mounting",
    [
        Attack(
            f"mounting {name}",
            f"in_child(lambda: libc.mount({arguments}) == 0)",
            bare=False,
        )
        for name, arguments in (
            ("a file system in memory", "b'x', OUTPUT.encode(), b'tmpfs', 0, None"),
            ("another proc", "b'x', OUTPUT.encode(), b'proc', 0, None"),
            ("sys", "b'x', OUTPUT.encode(), b'sysfs', 0, None"),
            ("control groups", "b'x', OUTPUT.encode(), b'cgroup2', 0, None"),
            ("an overlay", "b'x', OUTPUT.encode(), b'overlay', 0, b'lowerdir=/usr:/opt'"),
            ("the root elsewhere", "b'/', OUTPUT.encode(), None, 4096 | 16384, None"),
            ("a covered table open", "b'/proc', OUTPUT.encode(), None, 4096, None"),
            ("a disk", "TARGET['disk'].encode(), OUTPUT.encode(), b'ext4', 1, None"),
            ("debug files", "b'x', OUTPUT.encode(), b'debugfs', 0, None"),
            ("the root writable", "b'x', b'/', None, 32 | 4096, None"),
        )
    ]
    + [
        Attack(
            "taking away what covers a table",
            """
            for path in (b"/proc/kcore", b"/proc/keys", b"/proc/sysrq-trigger", b"/dev/pts", b"/"):
                for flags in (0, 2):
                    if libc.umount2(path, flags) == 0:
                        escaped(path)
            """,
            bare=False,
        ),
    ],
)
