"""Getting bytes out: every family of sockets, and every way to somebody else's socket."""

from tests.attacks.attack import Attack, under

# socket() through the 32-bit gate of the kernel, whose numbers a 64-bit filter would misread.
OLD_GATE = """
import mmap
if os.uname().machine == "x86_64":
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # push rbx; mov eax, 359 (socket); mov ebx, 2; mov ecx, 1; xor edx, edx; int 0x80; pop rbx; ret
    code.write(bytes.fromhex("53b867010000bb02000000b90100000031d2cd805bc3"))
    run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    if run() >= 0:
        escaped()
"""

ATTACKS = under(
    "sockets",
    [
        Attack(
            "tcp to a service on loopback",
            """
        try:
            with socket.create_connection(("127.0.0.1", TARGET["tcp"]), 2) as s:
                if s.recv(6) == b"canary":
                    escaped()
        except OSError:
            pass
        """,
        ),
        Attack(
            "udp to loopback",
            """
        try:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.sendto(b"data", ("127.0.0.1", TARGET["tcp"]))
            escaped()
        except OSError:
            pass
        """,
        ),
        Attack(
            "a listener of one's own",
            """
        try:
            s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
            escaped()
        except OSError:
            pass
        """,
        ),
        Attack(
            "the metadata address",
            """
        try:
            socket.create_connection(("169.254.169.254", 80), 1)
            escaped()
        except OSError:
            pass
        """,
            bare=False,
        ),
        Attack(
            "a name looked up",
            """
        for name in ("example.org", TARGET["hostname"]):
            try:
                if socket.getaddrinfo(name, 80):
                    escaped()
            except OSError:
                pass
        """,
            bare=False,
        ),
        *[
            Attack(
                f"a {name} socket",
                f"""
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW,
                         socket.SOCK_SEQPACKET):
                try:
                    socket.socket({family}, kind)
                    escaped()
                except OSError:
                    pass
            """,
                bare=bare,
            )
            for name, family, bare in (
                ("netlink", 16, True),
                ("packet", 17, True),
                ("vsock", 40, False),
                ("kernel crypto", 38, False),
                ("inet6", 10, False),
            )
        ],
        Attack(
            "any family but local",
            """
        for family in range(0, 64):
            if family == socket.AF_UNIX:
                continue
            for kind in (1, 2, 3, 5):
                try:
                    socket.socket(family, kind)
                    escaped(family)
                except OSError:
                    pass
        """,
        ),
        Attack(
            "a socket pair of another family",
            """
        # AF_TIPC; and the flag bits beside the family must not confuse the filter
        if call(53, 30, 1, 0, (ctypes.c_int * 2)()) is not None:
            escaped()
        """,
            bare=False,
        ),
        Attack(
            "a family in a wider register",
            """
        # The kernel reads 32 bits of the family, so the upper ones must not hide AF_INET.
        if call(41, 2 | 1 << 32, 1, 0) is not None:
            escaped()
        """,
        ),
        Attack("a socket through the 32-bit gate", OLD_GATE, bare=False, ends=None),
        Attack(
            "a socket by the x32 numbers",
            """
        if os.uname().machine == "x86_64" and call(0x40000000 | 41, 2, 1, 0) is not None:
            escaped()
        """,
            bare=False,
            ends=None,
        ),
        Attack(
            "a program attached to a socket",
            """
        # Classic BPF that says yes: the kernel would check and compile it, as bpf() does.
        program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFFFFFF))
        pair = socket.socketpair()
        try:
            pair[0].setsockopt(
                socket.SOL_SOCKET, 26, struct.pack("HxxxxxxP", 1, ctypes.addressof(program)))
            escaped()
        except OSError:
            pass
        """,
        ),
        Attack(
            "somebody's abstract socket",
            """
        try:
            s = socket.socket(socket.AF_UNIX); s.connect("\\0" + TARGET["abstract"])
            if s.recv(6) == b"canary":
                escaped()
        except OSError:
            pass
        """,
        ),
        Attack(
            "somebody's path socket",
            """
        try:
            s = socket.socket(socket.AF_UNIX); s.connect(TARGET["path_socket"])
            if s.recv(6) == b"canary":
                escaped()
        except OSError:
            pass
        """,
        ),
        Attack(
            "a network device beside loopback",
            """
        rows = open("/proc/net/dev").read().splitlines()
        if {row.split(":")[0].strip() for row in rows if ":" in row} - {"lo"}:
            escaped()
        """,
            bare=False,
        ),
    ],
)

ATTACKS += under(
    "services",
    [
        *[
            Attack(
                f"the {name}",
                f"""
                for port in (80, 443):
                    try:
                        family = socket.AF_INET6 if ":" in {address!r} else socket.AF_INET
                        s = socket.socket(family, socket.SOCK_STREAM)
                        s.settimeout(0.3)
                        s.connect(({address!r}, port))
                        escaped()
                    except OSError:
                        pass
                """,
                bare=False,
            )
            for name, address in (
                ("metadata service of one cloud", "169.254.169.254"),
                ("metadata service over IPv6", "fd00:ec2::254"),
                ("metadata service of another cloud", "168.63.129.16"),
                ("metadata service of a third cloud", "100.100.100.200"),
                ("credentials of a container's task", "169.254.170.2"),
                ("interface of a cluster", "10.96.0.1"),
            )
        ],
        Attack(
            "a question to a name server",
            """
            question = bytes.fromhex("abcd01000001000000000000076578616d706c65036f72670000010001")
            for server in ("127.0.0.53", "127.0.0.11", "8.8.8.8", "169.254.169.253"):
                try:
                    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    s.sendto(question, (server, 53))
                    escaped()
                except OSError:
                    pass
            """,
            bare=False,
        ),
        Attack(
            "tcp over IPv6 to loopback",
            """
            try:
                s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
                s.settimeout(1)
                s.connect(("::ffff:127.0.0.1", TARGET["tcp"]))
                if s.recv(6) == b"canary":
                    escaped()
            except OSError:
                pass
            """,
        ),
        Attack(
            "an address of this machine beside loopback",
            """
            for address in TARGET["addresses"]:
                try:
                    socket.create_connection((address, TARGET["tcp_all"]), 1)
                    escaped()
                except OSError:
                    pass
            """,
            bare=False,
        ),
        Attack(
            "sockets of services known by their path",
            """
            for path in ("/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket",
                         "/run/containerd/containerd.sock", "/run/systemd/journal/socket",
                         "/dev/log", "/tmp/.X11-unix/X0", "/run/glovebox"):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    try:
                        socket.socket(socket.AF_UNIX, kind).connect(path)
                        escaped(path)
                    except OSError:
                        pass
                if os.path.exists(path):
                    escaped(path)
            """,
            bare=False,
        ),
        Attack(
            "who speaks with whom on this machine",
            """
            found = False
            for name in ("tcp", "tcp6", "udp", "unix", "raw", "packet", "netlink", "arp", "route"):
                try:
                    rows = open("/proc/net/" + name).read()
                except OSError:
                    continue
                found |= f":{TARGET['tcp']:04X}" in rows or TARGET["abstract"] in rows
            if found:
                escaped()
            """,
        ),
        Attack(
            "a ping without a raw socket",
            """
            try:
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
                escaped()
            except OSError:
                pass
            """,
            bare=False,
        ),
        Attack(
            "a connection by sending in one step",
            """
            # TCP fast open: sendto connects, without a call to connect.
            try:
                s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                s.sendto(b"data", 0x20000000, ("127.0.0.1", TARGET["tcp"]))
                escaped()
            except OSError:
                pass
            """,
        ),
        Attack(
            "a network device of one's own",
            """
            for path in ("/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/vsock"):
                try:
                    os.open(path, os.O_RDWR)
                    escaped()
                except OSError:
                    pass
            """,
            bare=False,
            own_kernel=True,  # its own device, on its own network without any other
        ),
    ],
)
