"""The parts of RFC 6455 for a fast client: handshake and masked frames."""

from __future__ import annotations

import base64
import hashlib
import os
import socket

from scripts.benchmarks.errors import LoadError

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def upgrade_request(host: str, path: str, headers: dict[str, str]) -> tuple[bytes, bytes]:
    """Return the handshake's request and the expected Sec-WebSocket-Accept.

    Offers no compression.
    """
    key = base64.b64encode(os.urandom(16))
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key.decode()}", "Sec-WebSocket-Version: 13"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode(), base64.b64encode(hashlib.sha1(key + _GUID).digest())


def read_upgrade(sock: socket.socket, accept: bytes) -> bytes:
    """Read the handshake's response from a blocking *sock*.

    Returns the bytes after it.
    """
    answer = b""
    while b"\r\n\r\n" not in answer:
        chunk = sock.recv(65_536)
        if not chunk:
            raise LoadError(f"closed during the handshake, after {answer[:200]!r}")
        answer += chunk
    head, _, rest = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101") or accept not in head:
        raise LoadError(f"the handshake was refused: {head[:200]!r}")
    return rest


def masked(opcode: int, payload: bytes) -> bytes:
    """Return one complete client frame for *payload*, at most 65,535 bytes."""
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    mask = os.urandom(4)
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    return bytes([0x80 | opcode]) + size + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")
