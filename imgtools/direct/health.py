"""What the direct engine is made of, and whether all of it is here."""

from __future__ import annotations

import sys

from imgtools.direct.guard import DIRECT_HINT
from imgtools.direct.importing import import_only
from imgtools.errors import MissingBindingError

LIBRARIES = {
    "dissect.fve": "dissect.fve.luks.luks",
    "dissect.hypervisor": "dissect.hypervisor.disk.qcow2",
    "dissect.ntfs": "dissect.ntfs.ntfs",
    "dissect.util": "dissect.util.hash.crc32c",
    "backports.zstd": "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd",
    "lz4": "lz4.block",
    "pycryptodome": "Crypto.Cipher.AES",
}
"""The distributions of the extra ``direct``, each with a module of it that the engine uses."""


def libraries() -> str:
    """Say in a few words that every library is here.

    Raises MissingBindingError naming those that are not.
    """
    missing = [name for name, module in LIBRARIES.items() if not _importable(module)]
    if missing:
        raise MissingBindingError(f"not importable: {', '.join(missing)}", hint=DIRECT_HINT)
    return f"all {len(LIBRARIES)} libraries of it"


def _importable(module: str) -> bool:
    try:
        import_only(module)
    except ImportError:
        return False
    return True
