"""What was left lying about: variables, descriptors, names of the host."""

from tests.attacks.attack import Attack, under

ATTACKS = under(
    "traces",
    [
        Attack(
            "an inherited variable",
            """
        if any("canary" in value for value in os.environ.values()):
            escaped()
        """,
        ),
        Attack(
            "an inherited descriptor",
            """
        progress = int(os.environ.get("GLOVEBOX_PROGRESS_FD", "-1"))
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != progress:
                try:
                    target = os.readlink(f"/proc/self/fd/{name}")
                except OSError:
                    continue
                if not target.startswith("/proc/"):
                    escaped(target)
        """,
            bare=False,
        ),
        Attack(
            "the name of the host",
            'escaped() if os.uname().nodename == TARGET["hostname"] else None',
        ),
        Attack(
            "the path of the interpreter on the host",
            """
        seen = [*sys.path, sys.executable, sys.prefix, sys.base_prefix, os.__file__]
        if any(path.startswith(tuple(TARGET["host_paths"])) for path in seen):
            escaped()
        """,
        ),
        Attack(
            "the user of the host",
            'escaped() if TARGET["uid"] in (os.getuid(), os.geteuid()) else None',
        ),
        Attack(
            "the path of the control group",
            """
        if any(row.strip().rsplit(":", 1)[1] != "/" for row in open("/proc/self/cgroup")):
            escaped()
        """,
            bare=False,
        ),
    ],
)

ATTACKS += under(
    "inherited",
    [
        Attack(
            "a file that the runner had open",
            """
            for descriptor in range(3, 1024):
                try:
                    if os.pread(descriptor, 6, 0) == b"canary":
                        escaped()
                except OSError:
                    pass
            """,
        ),
        Attack(
            "a directory that the runner had open",
            """
            for descriptor in range(3, 1024):
                try:
                    os.fchdir(descriptor)
                    if open("secret.txt").read() == "canary":
                        escaped()
                except OSError:
                    pass
            """,
        ),
        Attack(
            "a connection that the runner had open",
            """
            for descriptor in range(3, 1024):
                try:
                    s = socket.socket(fileno=os.dup(descriptor))
                    if s.family == socket.AF_INET and s.getpeername():
                        escaped()
                except OSError:
                    pass
            """,
        ),
        Attack(
            "a listener that the runner had open",
            """
            for descriptor in range(3, 1024):
                try:
                    if os.fstat(descriptor).st_mode & 0o170000 != 0o140000:
                        continue
                    s = socket.socket(fileno=os.dup(descriptor))
                    if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        escaped()
                except OSError:
                    pass
            """,
        ),
        Attack(
            "the runner's own words in the pipes",
            """
            # Reading what was written to standard output or to the progress pipe.
            for descriptor in (1, 2, int(os.environ.get("GLOVEBOX_PROGRESS_FD", "1"))):
                try:
                    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK)
                    os.write(descriptor, b"x\\n")
                    if os.read(again, 100) not in (b"x\\n", b""):
                        escaped()
                except OSError:
                    pass
            """,
            bare=False,
        ),
    ],
)

ATTACKS += under(
    "traces",
    [
        Attack(
            "the hardware's address",
            """
            names = os.listdir("/sys/class/net") if os.path.exists("/sys/class/net") else []
            for name in set(names) - {"lo"}:
                escaped(name)
            """,
            bare=False,
        ),
        Attack(
            "the machine's number from its firmware",
            """
            for name in ("product_uuid", "board_serial", "product_serial", "chassis_serial"):
                for top in ("/sys/class/dmi/id/", "/sys/devices/virtual/dmi/id/"):
                    if os.path.exists(top + name):
                        escaped(name)
            """,
            bare=False,
        ),
        Attack(
            "who signed in to start this",
            """
            try:
                if open("/proc/self/sessionid").read().strip() not in ("", "0", str(2**32 - 1)):
                    escaped()
            except OSError:
                pass
            """,
            bare=False,
        ),
        Attack(
            "the names of the host's people",
            """
            import pwd
            names = {row.pw_name for row in pwd.getpwall()}
            if names - {"sandbox", "root", "nobody"}:
                escaped(names)
            """,
        ),
        Attack(
            "the host's time zone and language",
            """
            if os.path.exists("/etc/localtime") or os.path.exists("/etc/timezone"):
                escaped()
            if {"LC_ALL", "LANGUAGE", "TERM", "SSH_CONNECTION", "SUDO_USER", "LOGNAME", "USER",
                    "OLDPWD", "HOSTNAME"} & set(os.environ):
                escaped()
            """,
        ),
        Attack(
            "a variable that loads code",
            """
            for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PYTHONSTARTUP"):
                if name in os.environ:
                    escaped(name)
            if os.path.exists("/etc/ld.so.preload"):
                escaped()
            """,
            bare=False,
        ),
        Attack(
            "the parent's session and group",
            """
            # Ids of processes outside read as 0 here.
            if os.getsid(0) > 100 or os.getpgrp() > 100 or os.getppid() > 100:
                escaped()
            """,
        ),
    ],
)
