"""Values that cross the doors: disks, volumes, filesystems, file metadata.

Charter: frozen records with no behaviour beyond what follows from their own fields; imported by
every room above ``errors``.  The doors (``direct``, ``appliance``, ``image``, ``domain``) must not
import one another, so what they exchange is defined here, below all of them.

Conventions, everywhere in imgtools:

* Guest paths and names are ``bytes`` (they may hold anything but NUL, and ``/`` for names);
  host paths are ``pathlib.Path``.  The type checker keeps the two apart.
* Sizes are ``int`` bytes unless the name says otherwise; times are ``int`` nanoseconds since
  the epoch.
* Devices have the names that libguestfs gives them (canonical form): ``/dev/sda``,
  ``/dev/sda1``, ``/dev/md127``, ``/dev/VG/LV``, ``/dev/mapper/NAME`` for an opened LUKS volume
  and ``btrfsvol:/dev/sda2/PATH`` for a btrfs subvolume.
"""

from __future__ import annotations

import stat as _stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

EngineName = Literal["direct", "appliance"]

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
class Notice:
    """Something the user should know that did not stop the command.

    ``code`` is dotted and stable like an error's; ``message`` is one line.
    """

    code: str
    message: str


# --- what the user points at -------------------------------------------------------------------


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


# --- storage: what lies on the disks -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """A whole disk as the guest sees it.  ``disk`` is its 0-based index among the disks."""

    name: str
    size: int
    disk: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition.

    ``number`` is the kernel's (logical MBR partitions start at 5); ``mbr_id`` is the MBR type
    byte, None on GPT; ``gpt_type`` and ``gpt_guid`` are upper-case GUIDs, None on MBR;
    ``table`` is the partition table's type as libguestfs names it: ``gpt`` or ``msdos``.
    """

    name: str
    size: int
    parent: str
    number: int
    table: str
    start: int = 0
    mbr_id: int | None = None
    gpt_type: str | None = None
    gpt_guid: str | None = None
    label: str = ""
    bootable: bool = False
    extended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MdDevice:
    """An MD RAID array: ``level`` as mdadm prints it (``raid1``, ``linear`` …)."""

    name: str
    size: int
    level: str
    uuid: str
    parents: tuple[str, ...]
    degraded: bool = False
    set_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalVolume:
    """An LVM physical volume; ``uuid`` is LVM's id without dashes (as libguestfs lists it)."""

    name: str
    size: int
    uuid: str
    vg: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeGroup:
    """An LVM volume group; ``parents`` are its PVs' device names.

    ``name`` is unique among the disks opened together; when two volume groups carry the same
    name, see `unique_vg_names`.  ``own_name`` is the name in LVM's metadata.
    """

    name: str
    size: int
    uuid: str
    parents: tuple[str, ...]
    own_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalVolume:
    """An LVM logical volume that can hold data; ``name`` is ``/dev/VG/LV``."""

    name: str
    size: int
    uuid: str
    vg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LuksVolume:
    """An encrypted volume: ``device`` holds it, ``mapped`` is its opened name or None."""

    device: str
    uuid: str
    version: int
    mapped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filesystem:
    """Something mountable, or swap, or a volume whose content nobody recognises.

    ``device`` is the mountable; ``type`` is libblkid's name (``ext4``, ``vfat``, ``swap`` …) or
    ``unknown``; ``size`` is the device's, in bytes; ``parents`` are the devices it rests on
    directly; ``disks`` are the indexes of all disks it lies on, sorted.
    """

    device: str
    type: str
    label: str = ""
    uuid: str = ""
    size: int = 0
    parents: tuple[str, ...] = ()
    disks: tuple[int, ...] = ()

    @property
    def mountable(self) -> bool:
        """True when it can be expected to mount (not swap, not unknown)."""
        return self.type not in ("", "swap", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Everything found on a set of disks, each kind in libguestfs's listing order."""

    devices: tuple[BlockDevice, ...] = ()
    partitions: tuple[Partition, ...] = ()
    mds: tuple[MdDevice, ...] = ()
    pvs: tuple[PhysicalVolume, ...] = ()
    vgs: tuple[VolumeGroup, ...] = ()
    lvs: tuple[LogicalVolume, ...] = ()
    luks: tuple[LuksVolume, ...] = ()
    filesystems: tuple[Filesystem, ...] = ()
    warnings: tuple[Notice, ...] = ()


# --- guests that only libguestfs's inspection knows --------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignApplication:
    """A program of a guest that is not Linux; fields as in libguestfs's application2."""

    name: str
    display_name: str = ""
    epoch: int = 0
    version: str = ""
    release: str = ""
    arch: str = ""
    install_path: str = ""
    publisher: str = ""
    url: str = ""
    source_package: str = ""
    summary: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignGuest:
    """A guest that is not Linux, in libguestfs's words; what is not known is empty.

    ``mountpoints`` are (mountpoint, mountable), shortest first; ``drive_mappings`` are
    (letter, mountable).
    """

    root: str
    type: str
    distro: str = ""
    product_name: str = ""
    product_variant: str = ""
    major: int = 0
    minor: int = 0
    arch: str = ""
    hostname: str = ""
    windows_systemroot: str = ""
    windows_current_control_set: str = ""
    osinfo: str = ""
    package_format: str = ""
    package_management: str = ""
    mountpoints: tuple[tuple[str, str], ...] = ()
    filesystems: tuple[str, ...] = ()
    drive_mappings: tuple[tuple[str, str], ...] = ()
    applications: tuple[ForeignApplication, ...] = ()


def unique_vg_names(groups: list[tuple[str, str]]) -> list[str]:
    """Names for volume groups given as (own name, uuid), in disk order, made unique.

    LVM refuses two groups of one name, and auditors do add two clones at once.  The first one
    keeps its name; a later namesake gets ``-`` and the first six characters of its uuid
    (dashes dropped), which both engines use, so that a device name means the same in both.
    """
    seen: set[str] = set()
    names = []
    for own, uuid in groups:
        name = own if own not in seen else f"{own}-{uuid.replace('-', '')[:6]}"
        seen.add(name)
        names.append(name)
    return names


# --- files ---------------------------------------------------------------------------------------

FileKind = Literal["r", "d", "l", "b", "c", "f", "s", "u"]
"""libguestfs's one-letter types: regular, directory, link, block, char, FIFO, socket, unknown."""

_KIND_OF_MODE: dict[int, FileKind] = {
    _stat.S_IFREG: "r",
    _stat.S_IFDIR: "d",
    _stat.S_IFLNK: "l",
    _stat.S_IFBLK: "b",
    _stat.S_IFCHR: "c",
    _stat.S_IFIFO: "f",
    _stat.S_IFSOCK: "s",
}


def kind_of_mode(mode: int) -> FileKind:
    """Return the one-letter type for a ``st_mode``."""
    return _KIND_OF_MODE.get(_stat.S_IFMT(mode), "u")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """lstat(2) of a guest file.  ``blocks`` counts 512-byte units; times are nanoseconds."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    rdev: int = 0
    blksize: int = 4096
    blocks: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0

    @property
    def kind(self) -> FileKind:
        """The one-letter type."""
        return kind_of_mode(self.mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirEntry:
    """A name in a directory (never ``.`` or ``..``); ``kind`` may be ``u`` if only stat tells."""

    name: bytes
    kind: FileKind
    ino: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatVFS:
    """statvfs(3) as the Linux kernel would answer for the mounted filesystem."""

    bsize: int
    frsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    favail: int
    namemax: int = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What an appliance has beyond its disks: a network card, and how many processors."""

    network: bool = False
    processors: int = 1


PLAIN = Machine()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program of the guest ended.

    ``status`` is its exit status, 128 + N after signal N; ``output`` the end of stdout and stderr.
    """

    status: int
    output: bytes = field(repr=False)


class FileTree(Protocol):
    """One filesystem, read-only, without following any symbolic link.

    Paths are absolute bytes inside the filesystem (``b"/"`` is its root), already free of
    ``.``, ``..``, doubled slashes and symbolic links in all but the last component; resolving
    those is `imgtools.guest.tree`'s work, written once for both engines.

    Every method raises `GuestFileNotFoundError`, `GuestNotADirectoryError` … from
    `imgtools.errors`; the direct engine raises `DirectError` when it cannot be certain.
    """

    def lstat(self, path: bytes) -> Stat:
        """Metadata of ``path`` itself."""

    def readlink(self, path: bytes) -> bytes:
        """The target of the symbolic link ``path``, as stored."""

    def scandir(self, path: bytes) -> list[DirEntry]:
        """The entries of a directory in no particular order, without ``.`` and ``..``."""

    def lstat_many(self, directory: bytes, names: list[bytes]) -> list[Stat | None]:
        """lstat of several names of one directory at once; None where one vanished."""

    def open(self, path: bytes) -> BinaryIO:
        """A seekable read-only stream over a regular file."""

    def getxattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Extended attributes of ``path`` itself, by full name (``b"security.selinux"``)."""

    def statvfs(self) -> StatVFS:
        """Space and inodes of the whole filesystem."""


class WritableTree(FileTree, Protocol):
    """A filesystem that can be changed.  Paths as in `FileTree`; no method follows the last link
    except where it says so, and every one raises GuestOperationError and its kin."""

    def create(self, path: bytes, pieces: Iterable[bytes]) -> int:
        """Make or refill a file (its inode, owner and mode stay); returns the bytes written."""

    def write_at(self, path: bytes, offset: int, pieces: Iterable[bytes]) -> int:
        """Write into an existing file; returns the bytes written."""

    def sync(self) -> None:
        """Write out what was written so far."""

    def truncate(self, path: bytes, size: int) -> None:
        """Cut or extend a file."""

    def mkdir(self, path: bytes, mode: int) -> None:
        """Make a directory."""

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""

    def unlink(self, path: bytes) -> None:
        """Remove a name that is no directory."""

    def remove_all(self, path: bytes) -> None:
        """Remove a directory with everything below."""

    def symlink(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link."""

    def link(self, path: bytes, existing: bytes) -> None:
        """Make another name of a file."""

    def rename(self, old: bytes, new: bytes) -> None:
        """Rename within the filesystem, replacing what is there."""

    def copy_tree(self, old: bytes, other: Any, new: bytes) -> None:
        """Copy recursively into another tree of the same engine."""

    def chmod(self, path: bytes, mode: int) -> None:
        """Set the permission bits; follows a link."""

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        """Set owner and group."""

    def set_times(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        """Set access and modification time."""

    def set_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""

    def unpack(self, path: bytes, archive: int) -> None:
        """Unpack the tar stream of a descriptor into a new, empty directory."""


class Engine(Protocol):
    """A way into a set of disks.  Close it when done; it is not thread-safe."""

    @property
    def name(self) -> EngineName:
        """``direct`` or ``appliance``."""

    def storage(self) -> Storage:
        """Everything on the disks (cached; opens LUKS volumes whose keys were given)."""

    def mount(self, device: str) -> FileTree:
        """The file tree of a mountable, by the name `storage` gave it."""

    def close(self) -> None:
        """Release everything.  Idempotent."""
