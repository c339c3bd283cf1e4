"""Ports for servers that a test starts as processes of their own."""

from __future__ import annotations

import random
import socket
from pathlib import Path


def free_port() -> int:
    """A port of loopback that nobody listens on, and that the system hands to nobody meanwhile.

    Drawn from below the range out of which the kernel takes ports for outgoing connections: one
    asked of the kernel may be another connection's before the server that is to have it has
    started.
    """
    below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10_240, below)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
