"""Proxies in front of a server below /feed.

nginx and Caddy use the examples of scripts/deploy if they are installed, on the PATH or by scripts/test in
.venv/proxies. The tests' own proxy is always available.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.several_hosts import pump
from tests.server import ROOT, Server
from tests.waits import PATIENCE_SECS, wait_until

PREFIX = "/feed"
DEPLOY = ROOT / "scripts" / "deploy"
_FOLDERS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", str(ROOT / ".venv" / "proxies")])


def program(name: str) -> str | None:
    """Return the path of the program *name*."""
    return shutil.which(name, path=_FOLDERS)


KINDS = ("ours", *(name for name in ("nginx", "caddy") if program(name)))


@contextmanager
def front(kind: str, folder: Path, port: int, server: Server, *, removes_prefix: bool) -> Iterator[None]:
    """Run a proxy of that *kind* on *port*, in front of *server*."""
    if kind == "ours":
        with _run(_Front(port, server.port, removes_prefix=removes_prefix)):
            yield
        return
    write = {"nginx": _write_nginx, "caddy": _write_caddy}[kind]
    command = write(folder, port, server, removes_prefix)
    with (folder / f"{kind}.log").open("wb") as output:
        environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        wait_until(lambda: _is_listening(port) or process.poll() is not None, f"{kind} ready")
        assert process.poll() is None, (folder / f"{kind}.log").read_text()
        yield
    finally:
        process.kill()  # on SIGTERM Caddy waits for open connections
        process.wait(PATIENCE_SECS)


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _write_nginx(folder: Path, port: int, server: Server, removes_prefix: bool) -> list[str]:
    """Write the example without TLS, on another port.

    It has a folder of its own and runs in the foreground.
    """
    site = (DEPLOY / "nginx.conf").read_text()
    site = re.sub(r"\n\tssl_\w+ .*", "", site).replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    site = site.replace("server 127.0.0.1:8000;", f"server 127.0.0.1:{server.port};")
    if removes_prefix:
        site = site.replace("proxy_pass http://outfeed;", "proxy_pass http://outfeed/;")
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{site}}}\n"
    )
    executable = program("nginx")
    assert executable is not None
    return [executable, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


def _write_caddy(folder: Path, port: int, server: Server, removes_prefix: bool) -> list[str]:
    """Write the example without TLS, on another port, below the path.

    The path is configured as the example's comment describes.
    """
    text = (DEPLOY / "Caddyfile").read_text()
    head, site = text.split("\nfeed.example.com {\n")
    body = site.rstrip().removesuffix("}").replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    directive = "handle_path" if removes_prefix else "handle"
    head = head.replace("\n{\n", "\n{\n\tadmin off\n\tauto_https off\n", 1)
    (folder / "Caddyfile").write_text(
        f"{head}\nhttp://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n\t{directive} {PREFIX}/* {{\n{body}\t}}\n}}\n"
    )
    executable = program("caddy")
    assert executable is not None
    return [executable, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


class _Front(socketserver.ThreadingTCPServer):
    """A proxy that forwards every request below /feed.

    The path is forwarded as it is, or without /feed.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, upstream: int, *, removes_prefix: bool) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.upstream = upstream
        self.removes_prefix = removes_prefix


class _Handler(socketserver.BaseRequestHandler):
    """One request, or one WebSocket, of a client."""

    server: _Front

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self._forward()

    def _forward(self) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            more = self.request.recv(65_536)
            if not more:
                return
            received += more
        head, _, body = received.partition(b"\r\n\r\n")
        line, _, headers = head.partition(b"\r\n")
        method, path, version = line.split(b" ")
        if not path.startswith(PREFIX.encode() + b"/"):
            self.request.sendall(b"HTTP/1.1 404 -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        if self.server.removes_prefix:
            path = path.removeprefix(PREFIX.encode())
        if b"upgrade: websocket" not in headers.lower():
            headers = re.sub(rb"(?im)^connection:.*(\n|$)", b"", headers + b"\r\n") + b"Connection: close"
        with socket.create_connection(("127.0.0.1", self.server.upstream)) as ours:
            ours.sendall(b" ".join([method, path, version]) + b"\r\n" + headers + b"\r\n\r\n" + body)
            pump(ours, self.request)


@contextmanager
def _run(proxy: _Front) -> Iterator[None]:
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, name="front")
    thread.start()
    try:
        yield
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
