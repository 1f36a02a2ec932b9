"""Import all of Outfeed for the processes that are forked off this one.

They also have its routes and templates. The garbage collector skips what is loaded. Else each forked process would copy
those pages of memory.
"""

from __future__ import annotations

import gc
import importlib
import pkgutil
import sys
from pathlib import Path

import outfeed
import tests.compiled  # noqa: F401  # before an app is made
from outfeed.config import Settings
from outfeed.http.app import create_app

# Compiled once, not in each of the hundreds of processes that the tests start.
sys.dont_write_bytecode = False
for _module in pkgutil.walk_packages(outfeed.__path__, "outfeed."):
    importlib.import_module(_module.name)
# It opens no database, and makes no file for its key.
_app = create_app(Settings(database=Path("/nowhere/outfeed.db"), secret_key="0" * 64))
for _name in _app.jinja_env.list_templates():
    _app.jinja_env.get_template(_name)
del _app
gc.collect()
gc.freeze()
