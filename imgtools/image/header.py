"""What a vetted header says: values only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong with an image.

    ``code`` is dotted and stable; ``fatal`` says that the image must not be opened, since what
    would be read is not what the guest wrote.
    """

    code: str
    message: str
    fatal: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """An internal snapshot; ``virtual_size`` is None where the table does not keep it.

    ``l1_offset`` in bytes and ``l1_entries`` say where its map of clusters is.
    """

    id: str
    name: str
    date_seconds: int
    vm_state_size: int
    virtual_size: int | None = None
    l1_offset: int = 0
    l1_entries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bitmap:
    """A persistent dirty bitmap; ``granularity`` in bytes; ``flags`` as qemu-img names them."""

    name: str
    granularity: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """A VMDK extent line: ``size`` and ``offset`` (within ``file``) in bytes.

    ``file`` is the name as stored, None for an extent of zeros or one inside the image itself.
    """

    access: str
    kind: str
    size: int
    file: bytes | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """Everything an image's own header says, and what is wrong with it.

    Sizes in bytes.  ``format`` is qemu's name for it; ``stated`` says that the user (or the
    file's suffix, or the overlay above) named it, so that the content had no say.  References
    (``backing_file``, ``data_file``, ``extents``) are bytes as stored and have not been
    followed.  ``encryption`` is ``aes``, ``luks`` or None.  ``identity`` is (device, inode).
    """

    path: Path
    format: str
    stated: bool
    file_size: int
    virtual_size: int
    identity: tuple[int, int]
    version: int | None = None
    variant: str = ""
    cluster_size: int | None = None
    backing_file: bytes | None = None
    backing_format: str | None = None
    needs_parent: bool = False
    data_file: bytes | None = None
    data_file_raw: bool = False
    extents: tuple[Extent, ...] = ()
    encryption: str | None = None
    compression: str | None = None
    dirty: bool = False
    features: tuple[str, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    bitmaps: tuple[Bitmap, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def encrypted(self) -> bool:
        """True when the guest's data is encrypted at the image level."""
        return self.encryption is not None

    @property
    def fatal(self) -> Problem | None:
        """The first problem that forbids opening the image, or None."""
        return next((problem for problem in self.problems if problem.fatal), None)
