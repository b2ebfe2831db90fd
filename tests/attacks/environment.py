"""What was left lying about: variables, descriptors, names of the host."""

from tests.attacks.attack import Attack

ATTACKS = [
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
]
