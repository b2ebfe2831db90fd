"""Getting bytes out: every family of sockets, and every way to somebody else's socket."""

from tests.attacks.attack import Attack

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

ATTACKS = [
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
]
