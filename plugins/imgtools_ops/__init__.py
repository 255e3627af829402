"""The operations that imgtools brings: one module for each, found by its ``operation``."""

from __future__ import annotations

import importlib
import pkgutil

from imgtools.api import Operation

OPERATIONS: tuple[Operation, ...] = tuple(
    importlib.import_module(f"{__name__}.{module.name}").operation
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith("_")
)
