"""Import one parser without the rest of its package.

``dissect.hypervisor``'s ``__init__`` imports every format it knows, which costs 0.1 s where one
format costs a tenth of that.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from types import ModuleType


def import_only(name: str) -> ModuleType:
    """Import the module ``name`` without running its parent packages' ``__init__``.

    The parents are not left behind half made: whoever imports them later gets them whole.
    """
    if (known := sys.modules.get(name)) is not None:
        return known
    stubs: list[str] = []
    try:
        path: list[str] | None = None
        parts = name.split(".")
        for depth in range(1, len(parts)):
            parent = ".".join(parts[:depth])
            if depth == 1:  # a namespace package: nothing runs
                importlib.import_module(parent)
            if parent not in sys.modules:
                spec = PathFinder.find_spec(parent, path)
                if spec is None or spec.submodule_search_locations is None:
                    raise ModuleNotFoundError(f"No module named {parent!r}", name=parent)
                stub = ModuleType(parent)
                stub.__path__ = list(spec.submodule_search_locations)
                stub.__spec__ = spec
                sys.modules[parent] = stub
                stubs.append(parent)
            path = list(sys.modules[parent].__path__)
        return importlib.import_module(name)
    finally:
        for stub_name in stubs:
            del sys.modules[stub_name]


def zstd() -> ModuleType:
    """The zstd module: in the standard library from Python 3.14 on, a backport before."""
    return import_only("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
