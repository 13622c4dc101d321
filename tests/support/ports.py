"""TCP ports on loopback for servers that a test starts, stops and starts again."""

import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000


def free_ports(count: int) -> list[int]:
    """Ports that are free now and that the kernel does not hand out by itself.

    They lie below the ephemeral range: there, a client that keeps trying a dead server can be
    given the server's own port, connect to itself, and hold the port when the server comes back.
    The choice comes from the operating system, since pytest-randomly seeds every worker alike.
    """
    chooser = random.SystemRandom()
    highest = _first_ephemeral_port()
    ports: list[int] = []
    for _ in range(1_000):
        if len(ports) == count:
            return ports
        port = chooser.randrange(_LOWEST, highest)
        if port not in ports and _is_free(port):
            ports.append(port)
    raise OSError(f"no {count} free ports between {_LOWEST} and {highest}")


def _first_ephemeral_port() -> int:
    try:
        first = int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32_768
    return first if first > _LOWEST + 1_000 else 65_536


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
