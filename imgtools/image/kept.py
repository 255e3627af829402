"""A way back from a repair: the image's file as it was, kept in a file of its own.

Nobody can say beforehand which bytes a repair is going to write, so all are kept at first (by
reference where the file system can share blocks); afterwards what did not change is left out.  The
file:

    imgtools-kept 1\\n
    {"image", "size", "mtime_ns", "ranges": [[start, length], ...]}, padded to 64 KiB
    the bytes of all ranges, one after the other
    \\n{"size", "sha256": [...]}\\n                                  what the repair left

The last line is missing, and the one range is the whole file, when the repair was interrupted.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from imgtools.errors import ImageError, JournalError, OutputError, RefusedError, SpaceError

MAGIC = b"imgtools-kept 1\n"
_MAX_HEAD = 64 << 20
_PIECE = 1 << 20
_BLOCK = 1 << 16
DATA_AT = 1 << 16
"""Where the data begins in a file that keeps everything."""

Ranges = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An opened kept file; ``after`` is None if the repair was interrupted."""

    path: Path
    size: int
    mtime_ns: int
    ranges: tuple[tuple[int, int], ...]
    data_at: int
    after_size: int | None = None
    after: tuple[str, ...] | None = None


def keep_all(image: Path, target: Path) -> None:
    """Write a copy of the image's file to the new file ``target``, holes as holes, durably.

    Raises SpaceError before anything is written, and OutputError.
    """
    try:
        with image.open("rb") as source, target.open("xb") as stream:
            size = source.seek(0, os.SEEK_END)
            _check_space(source.fileno(), target)
            mtime_ns = os.fstat(source.fileno()).st_mtime_ns
            stream.write(_head(image, size, mtime_ns, [(0, size)]))
            stream.flush()
            for start, end in data_spans(source.fileno(), 0, size):
                _copy(source.fileno(), start, stream.fileno(), DATA_AT + start, end - start)
            os.ftruncate(stream.fileno(), DATA_AT + size)
            os.fsync(stream.fileno())
    except OSError as error:
        raise OutputError(
            f"{target}: the image cannot be kept: {error.strerror}; it is as it was",
            hint="name a file elsewhere with --keep",
        ) from error


def changed_ranges(kept: Kept, image: Path) -> list[tuple[int, int]]:
    """The (start, length) of all that differs between a kept copy of everything and the image."""
    ranges: list[tuple[int, int]] = []
    with kept.path.open("rb") as old, image.open("rb") as new:
        end = DATA_AT + kept.size
        spans = [(a - DATA_AT, b - DATA_AT) for a, b in data_spans(old.fileno(), DATA_AT, end)]
        spans += data_spans(new.fileno(), 0, kept.size)
        done = 0
        for begin, stop in sorted(spans):
            # Whole blocks, each once.
            position = max(done, begin // _BLOCK * _BLOCK)
            while position < stop:
                length = min(_BLOCK, kept.size - position)
                before = os.pread(old.fileno(), length, DATA_AT + position)
                if before != os.pread(new.fileno(), length, position).ljust(length, b"\0"):
                    _add(ranges, position, length)
                position += _BLOCK
            done = max(done, position)
    return ranges


def keep_changed(kept: Kept, image: Path, target: Path, ranges: Ranges) -> None:
    """Write to the new file ``target`` what is kept of ``ranges``, and what the repair left."""
    try:
        with kept.path.open("rb") as old, image.open("rb") as new, target.open("xb") as stream:
            stream.write(_head(image, kept.size, kept.mtime_ns, ranges))
            for piece in _pieces(old, [(DATA_AT + start, length) for start, length in ranges]):
                stream.write(piece)
            size = new.seek(0, os.SEEK_END)
            digests = [_digest(new, start, length) for start, length in ranges]
            stream.write(b"\n" + json.dumps({"size": size, "sha256": digests}).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror}") from error


def data_spans(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes, between two offsets."""
    while start < end:
        try:
            begin = os.lseek(fd, start, os.SEEK_DATA)
            stop = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a file system that knows no holes
                yield start, end
            return
        if begin >= end:
            return
        yield begin, min(stop, end)
        start = stop


def _copy(source: int, at: int, target: int, to: int, length: int) -> None:
    while length > 0:
        try:
            done = os.copy_file_range(source, target, min(length, 1 << 30), at, to)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            done = os.pwrite(target, os.pread(source, min(length, _PIECE), at), to)
        if done == 0:
            raise OSError(errno.EIO, "it has become shorter")
        at, to, length = at + done, to + done, length - done


def _check_space(source: int, target: Path) -> None:
    found = os.statvfs(target.parent)
    needed, left = os.fstat(source).st_blocks * 512, found.f_bavail * found.f_frsize
    if needed > left:
        raise SpaceError(
            f"{target.parent}: {left >> 20} MiB free; before a repair {needed >> 20} MiB are kept",
            hint="name a file on another disk with --keep",
        )


def _add(ranges: list[tuple[int, int]], start: int, length: int) -> None:
    if ranges and sum(ranges[-1]) == start:
        ranges[-1] = (ranges[-1][0], ranges[-1][1] + length)
    else:
        ranges.append((start, length))


def _head(image: Path, size: int, mtime_ns: int, ranges: Ranges) -> bytes:
    head = {
        "image": os.fsencode(image).decode(errors="backslashreplace"),
        "size": size,
        "mtime_ns": mtime_ns,
        "ranges": list(ranges),
    }
    # Blocks can only be shared between places that are aligned.
    raw = MAGIC + json.dumps(head).encode()
    return raw.ljust(-(-(len(raw) + 1) // DATA_AT) * DATA_AT - 1) + b"\n"


def read_kept(path: Path) -> Kept:
    """Read a kept file's lines, not its data.  Raises JournalError."""
    try:
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise _bad(path, "it is none")
            head = _line(stream)
            ranges = tuple((int(start), int(length)) for start, length in head["ranges"])
            size, data_at = int(head["size"]), stream.tell()
            _check_ranges(path, ranges, size)
            end = data_at + sum(length for _, length in ranges)
            if stream.seek(0, os.SEEK_END) < end:
                raise _bad(path, "it is cut off")
            stream.seek(end)
            after = _line(stream) if stream.read(1) == b"\n" else None
            return Kept(
                path=path,
                size=size,
                mtime_ns=int(head["mtime_ns"]),
                ranges=ranges,
                data_at=data_at,
                after_size=None if after is None else int(after["size"]),
                after=None if after is None else tuple(map(str, after["sha256"])),
            )
    except OSError as error:
        raise _bad(path, error.strerror or "it cannot be read") from error
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _bad(path, "it is damaged") from None


def restore(kept: Kept, image: Path, *, force: bool = False) -> None:
    """Put back what was kept: the image's file is then what it was, byte for byte.

    The caller holds the image for a change.  Raises RefusedError when the image is not what the
    repair left (it was used since) unless ``force``, and ImageError.
    """
    try:
        with kept.path.open("rb") as stream, image.open("r+b") as target:
            if not force:
                _refuse_changed(kept, image, stream, target)
            position = kept.data_at
            for start, length in kept.ranges:
                stream.seek(position)
                _put_back(stream, position, target, start, length)
                position += length
            target.flush()
            if not image.is_block_device():
                target.truncate(kept.size)
            os.fsync(target.fileno())
        os.utime(image, ns=(image.stat().st_atime_ns, kept.mtime_ns))
    except OSError as error:
        raise ImageError(f"{image}: cannot be restored: {error.strerror}") from error


def _put_back(stream: IO[bytes], position: int, target: IO[bytes], start: int, length: int) -> None:
    """Write what differs: holes stay holes."""
    for piece in _pieces(stream, [(position, length)]):
        target.seek(start)
        if target.read(len(piece)) != piece:
            target.seek(start)
            target.write(piece)
        start += len(piece)


def _refuse_changed(kept: Kept, image: Path, stream: IO[bytes], target: IO[bytes]) -> None:
    """Every range must be as the repair left it, or (a restore was interrupted) as it was."""
    size = target.seek(0, os.SEEK_END)
    same = kept.after is None or (
        size in (kept.after_size, kept.size) and len(kept.after) == len(kept.ranges)
    )
    position = kept.data_at
    for number, (start, length) in enumerate(kept.ranges):
        if not same or kept.after is None:
            break
        now = _digest(target, start, length)
        same = now in (kept.after[number], _digest(stream, position, length))
        position += length
    if not same:
        raise RefusedError(
            f"{image}: is not what the repair left: it was used since, or is another image",
            hint="--force restores it all the same, which destroys what was written since",
        )


def _pieces(stream: IO[bytes], ranges: Ranges) -> Iterator[bytes]:
    for start, length in ranges:
        stream.seek(start)
        left = length
        while left > 0:
            piece = stream.read(min(left, _PIECE))
            if not piece:
                raise OSError(0, "it has become shorter")
            yield piece
            left -= len(piece)


def _digest(stream: IO[bytes], start: int, length: int) -> str:
    digest = hashlib.sha256()
    stream.seek(start)
    left = length
    while left > 0 and (piece := stream.read(min(left, _PIECE))):
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest()


def _line(stream: IO[bytes]) -> dict[str, Any]:
    value = json.loads(stream.readline(_MAX_HEAD))
    if not isinstance(value, dict):
        raise TypeError
    return value


def _check_ranges(path: Path, ranges: Ranges, size: int) -> None:
    end = 0
    for start, length in ranges:
        if start < end or length <= 0 or start + length > size:
            raise _bad(path, "it is damaged")
        end = start + length


def _bad(path: Path, why: str) -> JournalError:
    return JournalError(
        f"{path}: cannot be used as the kept copy of a repair: {why}",
        hint="name the file that imgtools image check -r made",
    )
