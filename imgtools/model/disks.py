"""What the user points at: disks, their formats and keys, and the vetted layers of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

READ_ONLY_FORMATS = ("bochs", "cloop", "dmg")
"""Formats of image files that qemu reads and never writes."""
KNOWN_FORMATS = (
    *("raw", "qcow2", "qcow", "vmdk", "vdi", "vpc", "vhdx", "qed", "luks", "parallels"),
    *READ_ONLY_FORMATS,
)
"""Formats of image files by qemu's names; ``vpc`` is VHD."""
UNFILED_FORMATS = ("vvfat", "nbd")
"""What can be read as a disk and is no image file: a folder, shown as a FAT; an export of NBD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRequest:
    """One disk as asked for: a host path or a URI, and the format if the user named it.

    ``snapshot`` is the id or name of an internal snapshot to read instead of the active state.
    """

    path: Path | None = None
    uri: str | None = None
    format: str | None = None
    block_size: Literal[512, 4096] = 512
    snapshot: str | None = None

    @property
    def name(self) -> str:
        """What to call this disk in messages."""
        return self.uri if self.uri is not None else str(self.path)

    @property
    def unfiled(self) -> bool:
        """True for what is no image file or block device of this host."""
        return self.path is None or self.format in UNFILED_FORMATS


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpec:
    """A LUKS key: for the device named or the UUID ``id`` (``all`` fits every device).

    ``secret`` is the passphrase or key-file content as bytes; it never enters a log or argv.
    """

    id: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayer:
    """One vetted image of a backing chain.

    ``path`` is absolute; ``format`` is certain (stated, or vetted); ``virtual_size`` in bytes;
    ``extents`` are further files that belong to the layer (VMDK extents, a qcow2 data-file),
    vetted as well, as absolute paths.  ``snapshot_table`` is where the L1 table of the internal
    snapshot to read lies: its offset in bytes and its number of entries.  ``node`` is qemu's block
    node of what is no file (``path`` is then a name only); nothing but qemu can read that.
    """

    path: Path
    format: str
    virtual_size: int
    extents: tuple[Path, ...] = ()
    snapshot_table: tuple[int, int] | None = None
    node: Mapping[str, Any] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk that is safe to open: every file it rests on has been vetted.

    ``layers`` is the backing chain, the active layer first and the base last; empty for a
    remote disk, which only ``uri`` names.  ``in_use`` says that another process (a running
    guest) holds the image's locks, so that what we read may be inconsistent.
    ``pending``: the active layer is the overlay of an interrupted commit, which shows it whole.
    """

    request: DiskRequest
    layers: tuple[ImageLayer, ...] = ()
    uri: str | None = None
    in_use: bool = False
    pending: bool = False

    @property
    def name(self) -> str:
        """What to call this disk in messages."""
        return self.request.name

    @property
    def format(self) -> str | None:
        """The format of the active layer, None for a remote disk without a stated one."""
        return self.layers[0].format if self.layers else self.request.format

    @property
    def virtual_size(self) -> int | None:
        """The size the guest sees, in bytes; None when only opening would tell."""
        return self.layers[0].virtual_size if self.layers else None
