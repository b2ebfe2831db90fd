"""Tries the ways out that the sandbox must close, and counts how many were open.

Sockets of every family, other people's files, other processes, places to write.
"""

import contextlib
import os
import socket

import glovebox
from model import build

opened = 0
for family in ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG"):
    with contextlib.suppress(OSError):
        socket.socket(getattr(socket, family), socket.SOCK_STREAM).close()
        opened += 1
for address in (("127.0.0.1", 8000), ("169.254.169.254", 80), ("8.8.8.8", 53)):
    with contextlib.suppress(OSError):
        socket.create_connection(address, timeout=2).close()
        opened += 1

read = 0
for path in ("/etc/shadow", "/root", "/home", "/var/log", "/proc/1/environ", "/sys/kernel/notes"):
    with contextlib.suppress(OSError):
        if os.path.isdir(path):
            read += bool(os.listdir(path))
        else:
            with open(path, "rb") as stream:
                read += bool(stream.read(1))
for split in ("sealed",):
    with contextlib.suppress(Exception):
        read += len(glovebox.dataset("mammography").split(split)) > 0

written = 0
for path in ("/code/x", "/data/x", "/data/mammography/x", "/usr/x", "/opt/x", "/x"):
    with contextlib.suppress(OSError):
        with open(path, "wb") as stream:
            stream.write(b"x")
        written += 1

print("opened", opened, "read", read, "written", written)
glovebox.save_weights(build({}))
glovebox.save_metrics(opened=opened, read=read, written=written)
