"""The record of a transaction: a small JSON file beside each image.

``.NAME.imgtools`` says what was begun on the image NAME: ``working`` (only overlays exist: throw
them away), ``committing`` (the overlays are complete: write them to the images) or ``committed``
(they are written, and only to be removed).  Of several
disks the first one's record rules, the others' only point to it, so that one rename commits all.
A block device has no folder of its own: its record lies in our state folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from imgtools.errors import JournalError, SpaceError

State = Literal["working", "committing", "committed"]
VERSION = 1
MAX_RECORD = 1 << 20
_NAME_MAX = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDisk:
    """One image and its overlay.  ``format`` is the image's; ``identity`` its device and inode
    (for a block device 0 and its number); ``size`` the virtual size in bytes, ``new_size`` the one
    that the image gets with the change, its new space taken as ``preallocation`` says.
    ``file_level``: the overlay is one of the file's own bytes, not of the disk that it holds."""

    image: str
    format: str
    identity: tuple[int, int]
    size: int
    overlay: str
    new_size: int | None = None
    preallocation: str = "off"
    file_level: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What was begun, by which command and when (ISO 8601, UTC)."""

    state: State
    command: str
    started: str
    disks: tuple[RecordedDisk, ...]
    version: int = VERSION

    @property
    def images(self) -> list[Path]:
        """The images, in order."""
        return [Path(disk.image) for disk in self.disks]


def identity_of(path: Path) -> tuple[int, int]:
    """What tells this file from another one at the same path."""
    status = path.stat()
    if stat.S_ISBLK(status.st_mode):
        return 0, status.st_rdev
    return status.st_dev, status.st_ino


def state_folder() -> Path:
    """Where records of block devices lie."""
    import platformdirs

    return platformdirs.user_state_path("imgtools") / "transactions"


def record_path(image: Path) -> Path:
    """Where the record of ``image`` (a resolved path) lies."""
    if image.is_block_device():
        return state_folder() / _digest(image)
    return image.with_name(hidden_name(image.name, ".imgtools"))


def hidden_name(name: str, suffix: str) -> str:
    """``.NAME`` and a suffix, shortened where the file system would not take it."""
    full = f".{name}{suffix}"
    if len(os.fsencode(full)) <= _NAME_MAX:
        return full
    return f".{_digest(name)}{suffix}"


def _digest(name: str | Path) -> str:
    import hashlib  # which takes its time to load, for names that hardly anybody has

    return hashlib.sha256(os.fsencode(name)).hexdigest()[:32]


# --- writing -------------------------------------------------------------------------------------


def write(record: Record) -> None:
    """Put the record beside every image, durably; the first image's last, since it rules.

    Raises SpaceError where a folder does not take it.
    """
    first = record_path(record.images[0])
    for image in record.images[1:]:
        _write(record_path(image), {"version": VERSION, "see": os.fspath(first)})
    _write(first, asdict(record))


def finish(record: Record) -> None:
    """The commit is complete: from here on the overlays are leftovers, whoever removes them."""
    try:
        write(dataclasses.replace(record, state="committed"))
    except SpaceError:
        # On a full disk a record cannot be replaced, but it can go.
        remove(record)


def remove(record: Record) -> None:
    """Remove the record, the ruling one first.  One that is gone is no error."""
    for image in record.images:
        path = record_path(image)
        with contextlib.suppress(OSError):
            _part(path).unlink()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync(path.parent)


def unfinished_path(image: Path) -> Path:
    """Where a record of ``image`` is written before it gets its name."""
    return _part(record_path(image))


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _write(path: Path, value: dict[str, Any]) -> None:
    part = _part(path)
    try:
        if path.parent == state_folder():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.unlink(missing_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as stream:  # noqa: PTH123 (a descriptor)
            stream.write(json.dumps(value, indent=1).encode("ascii"))
            stream.flush()
            os.fsync(fd)
        part.rename(path)
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise SpaceError(
            f"{path}: the record of the change cannot be written: {error.strerror}",
            hint="the image's folder must be writable and have some space",
        ) from error


def sync(path: Path) -> None:
    """Bring a file to its storage, or what was renamed and removed in a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- reading -------------------------------------------------------------------------------------


def find(image: Path) -> Record | None:
    """The record that rules ``image`` (a resolved path), None if there is none.

    Raises JournalError for one that is damaged, not ours, or speaks of another image.
    """
    path = record_path(image)
    value = _read(path)
    if value is None:
        return None
    if "see" in value:
        path = Path(str(value["see"]))
        value = _read(path)
        if value is None:  # the first image is done, and we were stopped before this pointer went
            return None
    record = _checked(path, value)
    if image not in record.images:
        raise _damaged(path, f"it does not speak of {image}")
    # A record may only name images that have one themselves: else it could name any file.
    if path != record_path(record.images[0]):
        raise _damaged(path, f"it belongs to {record.images[0]}")
    for other in record.images[1:]:
        if (_read(record_path(other)) or {}).get("see") != os.fspath(path):
            raise _damaged(path, f"{other}, which it names, has none")
    return record


def image_of(record: Path) -> Path | None:
    """The image that the record file ``record`` speaks of, by its name, else by its content."""
    if record.parent != state_folder():
        image = record.with_name(record.name.removeprefix(".").removesuffix(".imgtools"))
        if record_path(image) == record and os.path.lexists(image):
            return image
    try:
        value = _read(record) or {}
        names = [Path(str(disk["image"])) for disk in value.get("disks", [])]
    except (JournalError, KeyError, TypeError):
        return None
    return next((name for name in names if record_path(name) == record), None)


def has_record(image: Path) -> bool:
    """True if a record may lie beside ``image``: a quick look, for every image that is opened."""
    try:
        return os.path.lexists(record_path(Path(os.path.realpath(image))))
    except (OSError, ValueError):
        return False


def _read(path: Path) -> dict[str, Any] | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _damaged(path, error.strerror or "it cannot be opened") from error
    with open(fd, "rb") as stream:  # noqa: PTH123 (a descriptor)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022:
            raise _damaged(path, "others may write it")
        if status.st_uid not in (0, os.geteuid()):
            raise _damaged(path, f"it belongs to user {status.st_uid}")
        data = stream.read(MAX_RECORD)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is damaged") from error
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise _damaged(path, "it is damaged, or of another version of imgtools")
    return value


def _checked(path: Path, value: dict[str, Any]) -> Record:
    import msgspec

    try:
        record = msgspec.convert(value, Record, strict=True)
    except msgspec.ValidationError as error:
        raise _damaged(path, f"it is damaged ({error})") from error
    names = [name for disk in record.disks for name in (disk.image, disk.overlay)]
    if not record.disks or not all(Path(name).is_absolute() for name in names):
        raise _damaged(path, "it names no disk")
    return record


def _damaged(path: Path, why: str) -> JournalError:
    return JournalError(
        f"{path}: a record of an interrupted change, but {why}",
        hint="if you are certain that the image is whole, remove that file; otherwise restore the "
        "image from a backup",
    )
