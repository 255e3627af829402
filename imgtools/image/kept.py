"""The bytes of an image that a repair is going to change, kept in a file of their own.

Which bytes those are is found by doing the repair on an overlay over the image's file: what the
overlay holds afterwards is what was written.  The repair is then done in earnest on the same bytes,
with the same program, while nobody else can write.  The file:

    imgtools-kept 1\n
    {"image", "size", "mtime_ns", "ranges": [[start, length], …]}\n    what the file was before
    the bytes of all ranges, one after the other
    \n{"size", "sha256": […]}\n                                        what the repair left

The last line is missing when the repair was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from imgtools import nodes
from imgtools.errors import ImageError, JournalError, OutputError, RefusedError
from imgtools.process import run

MAGIC = b"imgtools-kept 1\n"
_MAX_HEAD = 64 << 20
_PIECE = 1 << 20

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


def make_overlay(path: Path, size: int) -> None:
    """An empty qcow2 that can hold what is written to a file of ``size`` bytes."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", f"file:{path}", str(-(-size // 512) * 512)]
    run(argv)


def written_ranges(overlay_node: nodes.Node, size: int) -> list[tuple[int, int]]:
    """The (start, length) of all that an overlay holds, as far as the file below it reaches."""
    done = run(["qemu-img", "map", "--output=json", nodes.spec(overlay_node)])
    found = []
    for extent in json.loads(done.stdout):
        start = extent["start"]
        length = min(extent["length"], size - start)
        if extent["depth"] == 0 and length > 0:
            found.append((start, length))
    return found


def keep(image: Path, target: Path, ranges: Ranges) -> None:
    """Write the bytes of ``ranges`` to the new file ``target`` and bring them to its storage.

    Raises OutputError.
    """
    try:
        with image.open("rb") as source, target.open("xb") as stream:
            size = source.seek(0, os.SEEK_END)
            head = {
                "image": os.fsencode(image).decode(errors="backslashreplace"),
                "size": size,
                "mtime_ns": os.fstat(source.fileno()).st_mtime_ns,
                "ranges": list(ranges),
            }
            stream.write(MAGIC + json.dumps(head).encode() + b"\n")
            for piece in _pieces(source, ranges):
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OutputError(
            f"{target}: what the repair changes cannot be kept: {error.strerror}; the image is as "
            "it was",
            hint="name a file elsewhere with --keep",
        ) from error


def note_after(image: Path, target: Path, ranges: Ranges) -> None:
    """Add what the repair left, by which a later restore knows that the image was not used."""
    with image.open("rb") as source, target.open("ab") as stream:
        size = source.seek(0, os.SEEK_END)
        digests = [_digest(source, start, length) for start, length in ranges]
        stream.write(b"\n" + json.dumps({"size": size, "sha256": digests}).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


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
                target.seek(start)
                for piece in _pieces(stream, [(position, length)]):
                    target.write(piece)
                position += length
            target.flush()
            if not image.is_block_device():
                target.truncate(kept.size)
            os.fsync(target.fileno())
        os.utime(image, ns=(image.stat().st_atime_ns, kept.mtime_ns))
    except OSError as error:
        raise ImageError(f"{image}: cannot be restored: {error.strerror}") from error


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
