"""Mount: serves the app below the path of OUTFEED_PUBLIC_URL, whether or not the proxy has removed that path."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class Mount:
    """WSGI middleware: every request is one below *prefix*, and every address that the app makes begins with it.

    A proxy that removes the prefix and one that does not lead to the same routes, and so does a direct request.
    """

    def __init__(self, wsgi_app: Callable[..., Iterable[bytes]], prefix: str) -> None:
        self._wsgi_app = wsgi_app
        self._prefix = prefix

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["SCRIPT_NAME"] = self._prefix
        environ["PATH_INFO"] = without_prefix(environ.get("PATH_INFO", ""), self._prefix)
        return self._wsgi_app(environ, start_response)


def without_prefix(path: str, prefix: str) -> str:
    """Return *path* below *prefix*, or as it is if it does not begin with it. The prefix itself is the home page."""
    if path in ("", prefix):
        return "/"
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path
