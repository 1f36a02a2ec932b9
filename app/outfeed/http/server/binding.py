"""Binding: checks OUTFEED_BIND before anything is changed."""

from __future__ import annotations

import errno
import socket
import time

from outfeed import clock
from outfeed.config import Settings
from outfeed.config.values import MAX_PORT
from outfeed.errors import ConfigError

# A killed server's port is free when its last worker has ended.
BIND_TIMEOUT_SECS = 1.0
_RETRY_SECS = 0.05


def require_free(settings: Settings) -> None:
    """Bind OUTFEED_BIND and release it.

    Retries for BIND_TIMEOUT_SECS while the address is in use. Raises ConfigError with the reason and the setting to
    change.
    """
    host, port = settings.bound
    deadline = clock.monotonic() + BIND_TIMEOUT_SECS
    while True:
        try:
            _bind(host, port)
            return
        except socket.gaierror as error:
            raise ConfigError(f"OUTFEED_BIND: the host {host!r} can't be resolved ({error.strerror})") from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE or clock.monotonic() > deadline:
                raise ConfigError(f"OUTFEED_BIND: {_explain(error, settings)}") from error
        time.sleep(_RETRY_SECS)


def _bind(host: str, port: int) -> None:
    """Bind and listen as gunicorn does, then close the socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)


def _explain(error: OSError, settings: Settings) -> str:
    host, port = settings.bound
    match error.errno:
        case errno.EADDRINUSE:
            return f"{settings.bind} is in use. Is Outfeed already running? Set OUTFEED_BIND to another port"
        case errno.EACCES | errno.EPERM:
            return (
                f"this user may not listen on port {port}. Set OUTFEED_BIND to a port from 1024 to {MAX_PORT}, or"
                " let a proxy listen there"
            )
        case errno.EADDRNOTAVAIL:
            return f"this machine has no address {host}. Set OUTFEED_BIND to one of its own, or to 0.0.0.0:{port}"
    return f"can't listen on {settings.bind}: {error.strerror}"
