"""Import a copy of the package, with all libraries loaded before."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def import_all(arguments: list[str]) -> None:
    """Import every module of the package in the folder *arguments*.

    Prints the number of modules, and the folders that they are from.
    """
    (folder,) = map(Path, arguments)
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]
    sys.path.insert(0, str(folder.parent))
    importlib.invalidate_caches()
    for file in sorted(folder.rglob("*.py")):
        importlib.import_module(
            ".".join(file.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
        )
    files = [str(module.__file__) for name, module in sys.modules.items() if name.partition(".")[0] == folder.name]
    print(len(files), *{file.partition(f"/{folder.name}/")[0] for file in files})
