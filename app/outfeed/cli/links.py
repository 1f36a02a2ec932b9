"""Links that a command prints, for a browser."""

from __future__ import annotations

from outfeed.cli import show
from outfeed.config import settings
from outfeed.config.addresses import LOCAL_LINK, is_local_url
from outfeed.store.serving import serving


def sign_in_link(code: str) -> str:
    """Return the link that signs in with *code*.

    The link leads to OUTFEED_PUBLIC_URL, else to OUTFEED_URL, else to the running server, else to OUTFEED_BIND. A link
    that works only on this machine causes a warning on stderr.
    """
    url = server_url()
    if is_local_url(url):
        show.warn(LOCAL_LINK)
    return f"{url}/login?code={code}"


def server_url() -> str:
    """Return the address of the server, as `sign_in_link` has it."""
    current = settings()
    if current.public_url or current.url:
        return current.public_url or current.base_url
    server = serving(current.database)
    return server.url if server is not None and server.url else current.bound_url
