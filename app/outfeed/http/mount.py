"""Mount: serves the app below the path of OUTFEED_PUBLIC_URL, whether or not the proxy has removed that path."""

from __future__ import annotations

from typing import Any


def mount(environ: dict[str, Any], prefix: str) -> None:
    """Make the request one below *prefix*: addresses that the app makes begin with it.

    A proxy that removes the prefix and one that does not lead to the same routes, and so does a direct request.
    """
    environ["SCRIPT_NAME"] = prefix
    environ["PATH_INFO"] = without_prefix(environ.get("PATH_INFO", ""), prefix)


def without_prefix(path: str, prefix: str) -> str:
    """Return *path* below *prefix*, or as it is if it does not begin with it. The prefix itself is the home page."""
    if path in ("", prefix):
        return "/"
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path
