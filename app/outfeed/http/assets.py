"""Static files: read once, and served to our own pages under an address that names what is in all of them.

What has such an address never changes, so browsers keep it without asking again. Modules name each other relatively,
and inherit it. Pages of other sites know none: for them the files stand under /static/ itself, and are asked for anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from urllib.parse import urljoin

from flask import Blueprint, Response, request, url_for
from werkzeug.exceptions import NotFound

from outfeed.events import DISPLAY
from outfeed.http.permission import public

PACKAGE = Path(__file__).parents[1]
# Those that several features share, and those of each.
FOLDERS = [PACKAGE / "static", *PACKAGE.glob("*/static")]
TYPES = {".css": "text/css", ".js": "text/javascript", ".json": "application/json", ".svg": "image/svg+xml"}
FILES = {
    file.relative_to(folder).as_posix(): file.read_bytes()
    for folder in FOLDERS
    for file in folder.rglob("*.*")
    if file.suffix in TYPES
}
# How each type looks, for `<event-feed>`: the one file that is made from a table of the server's.
FILES["event-types.json"] = json.dumps({name: display.as_dict() for name, display in DISPLAY.items()}).encode()

ETAGS = {name: hashlib.sha256(content).hexdigest()[:16] for name, content in FILES.items()}
VERSION = hashlib.sha256(json.dumps(ETAGS, sort_keys=True).encode()).hexdigest()[:16]
IMPORT = re.compile(r'^import .*"(\.[^"]+)";', re.MULTILINE)

assets = Blueprint("assets", __name__)


@assets.get("/static/<path:name>")
@public()
def asked_again(name: str) -> Response:
    """Return a static file, which browsers revalidate on each use."""
    return _answer(name, "no-cache")


@assets.get("/static/v-<version>/<path:name>")
@public()
def kept(version: str, name: str) -> Response:
    """Return a static file, which browsers keep. An older version in the path gets the present file, revalidated."""
    return _answer(name, "public, max-age=31536000, immutable" if version == VERSION else "no-cache")


def _answer(name: str, cache_control: str) -> Response:
    if name not in FILES:
        raise NotFound
    response = Response(FILES[name], mimetype=TYPES[Path(name).suffix])
    response.headers["Cache-Control"] = cache_control
    response.set_etag(ETAGS[name])
    response.make_conditional(request)
    return response


@assets.app_template_global("asset")
def address(name: str) -> str:
    """Return where our own pages find a file."""
    return url_for("assets.kept", version=VERSION, name=name)


@assets.app_template_global()
@functools.cache
def imports_of(*modules: str) -> list[str]:
    """Return what *modules* import, and what that imports: a page asks for all at once, not for each when it is due."""
    found = list(modules)
    for module in found:  # which grows
        imported = (urljoin(module, name) for name in IMPORT.findall(FILES[module].decode()))
        found += [name for name in imported if name not in found]
    return found[len(modules) :]
