"""The files that a browser fetches for the modules of a page."""

from __future__ import annotations

import re
from urllib.parse import urljoin

from tests.http.visitors import Visit

NAMED = re.compile(r'(?:\bfrom |\bimport |\bimport\(|\bnew URL\()"([^"]+)"(?=;|\)|, import\.meta\.url)')


def paths_read_by(visit: Visit, *modules: str) -> set[str]:
    """Return the paths of *modules* and of all files that they name.

    The imports of the modules are included.
    """
    read: set[str] = set()
    named = set(modules)
    while path := next(iter(named - read), None):
        read.add(path)
        if not path.endswith(".png"):
            named |= {urljoin(path, name) for name in NAMED.findall(visit("GET", path).text)}
    return read
