"""Static files, read once and served under a versioned address.

The server's own pages use addresses that contain a hash of all files. The content at such an address never changes, so
browsers keep it without revalidation. Modules import each other by relative paths and so inherit the version. Pages of
other sites don't know the version. They use /static/ itself, and their browsers revalidate each file.
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

from outfeed.display import OWN
from outfeed.http.permission import public

PACKAGE = Path(__file__).parents[1]
# The shared folder, and the folder of each feature.
FOLDERS = [PACKAGE / "static", *PACKAGE.glob("*/static")]
TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
FILES = {
    file.relative_to(folder).as_posix(): file.read_bytes()
    for folder in FOLDERS
    for file in folder.rglob("*.*")
    if file.suffix in TYPES
}
# The displays of the event types, for `<event-feed>`: the only file that the server generates.
FILES["event-types.json"] = json.dumps({name: display.as_dict() for name, display in OWN.items()}).encode()

ETAGS = {name: hashlib.sha256(content).hexdigest()[:16] for name, content in FILES.items()}
VERSION = hashlib.sha256(json.dumps(ETAGS, sort_keys=True).encode()).hexdigest()[:16]
IMPORT = re.compile(r'^import .*"(\.[^"]+)";', re.MULTILINE)

assets = Blueprint("assets", __name__)


@assets.get("/static/<path:name>")
@public()
def unversioned(name: str) -> Response:
    """Return a static file that browsers revalidate on each use."""
    return _answer(name, "no-cache")


@assets.get("/static/v-<version>/<path:name>")
@public()
def versioned(version: str, name: str) -> Response:
    """Return a static file that browsers keep.

    A path with an older version returns the present file, and browsers revalidate it.
    """
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
    """Return the versioned address of a file, for the server's own pages."""
    return url_for("assets.versioned", version=VERSION, name=name)


@assets.app_template_global()
@functools.cache
def imports_of(*modules: str) -> list[str]:
    """Return all direct and indirect imports of *modules*.

    A page preloads them all at once, instead of one level of imports after another.
    """
    found = list(modules)
    for module in found:  # the list grows while the loop runs
        imported = (urljoin(module, name) for name in IMPORT.findall(FILES[module].decode()))
        found += [name for name in imported if name not in found]
    return found[len(modules) :]
