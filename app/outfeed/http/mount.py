"""Mount: serves the app below the path of OUTFEED_PUBLIC_URL.

The proxy may remove that path or keep it.
"""

from __future__ import annotations

from typing import Any


def mount(environ: dict[str, Any], prefix: str) -> None:
    """Move the request below *prefix*.

    Every address that the app makes begins with the prefix. Requests lead to the same routes from a proxy that removes
    the prefix, from one that keeps it, and directly.
    """
    environ["SCRIPT_NAME"] = prefix
    environ["PATH_INFO"] = without_prefix(environ.get("PATH_INFO", ""), prefix)


def without_prefix(path: str, prefix: str) -> str:
    """Return *path* below *prefix*, or *path* itself if it is not below.

    The prefix itself is the home page.
    """
    if path in ("", prefix):
        return "/"
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path
