"""/admin/addresses: routes of the page. The views import what they need."""

from __future__ import annotations

from flask import Blueprint
from flask.typing import ResponseReturnValue

from outfeed.http.permission import requires
from outfeed.principal import ADMIN

address_pages = Blueprint("address_pages", __name__, url_prefix="/admin/addresses")


@address_pages.get("")
@requires(ADMIN, is_page=True)
def show() -> ResponseReturnValue:
    """Show operators every write-only address, and the form of one."""
    from outfeed.gateways.incoming import address_views

    return address_views.show()


@address_pages.post("")
@requires(ADMIN, is_page=True)
def add() -> ResponseReturnValue:
    """Create an address, and show its URL and signing secret once."""
    from outfeed.gateways.incoming import address_views

    return address_views.add()


@address_pages.post("/revoke")
@requires(ADMIN, is_page=True)
def revoke() -> ResponseReturnValue:
    """Revoke an address, after a confirmation."""
    from outfeed.gateways.incoming import address_views

    return address_views.revoke()
