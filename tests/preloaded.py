"""Import all of Outfeed for the processes that are forked off this one.

The garbage collector skips what is loaded. Else each forked process would copy those pages of memory.
"""

from __future__ import annotations

import gc
import importlib
import pkgutil
import sys

import outfeed

# Compiled once, not in each of the hundreds of processes that the tests start.
sys.dont_write_bytecode = False
for _module in pkgutil.walk_packages(outfeed.__path__, "outfeed."):
    importlib.import_module(_module.name)
gc.collect()
gc.freeze()
