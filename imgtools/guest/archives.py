"""Files of the host into a guest: as a tar stream, made by tar or given by the user."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from imgtools.errors import MissingBindingError, UsageError
from imgtools.guest.unpacking import Unpack
from imgtools.process import streaming

_MAGIC: list[tuple[bytes, str]] = [
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x5d\0\0", "lzma"),
]
"""The first bytes of compressed streams (RFC 1952, bzip2, xz-file-format, RFC 8878, lzma)."""


def copy_in(
    sources: Sequence[Path], folder: bytes, *, owner: str | None, told: Callable[[int], None]
) -> Unpack:
    """The step that copies files and folders of the host, with everything below, into ``folder``.

    With modes, times, attributes, ACLs, hard links, devices and holes; links are copied as links.
    Owners are the host's numbers, or ``owner`` by the guest's names.  Raises UsageError for a
    source that is not there or two of one name.
    """
    places = [_place(source) for source in sources]
    names = [name for _, name in places]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two sources are called {min(twice)}", hint="copy them one by one")

    @contextlib.contextmanager
    def archive(numbers: tuple[int | None, int | None]) -> Iterator[BinaryIO]:
        with streaming(_tar(places, numbers)) as stream:
            yield cast("BinaryIO", stream)

    return Unpack(path=folder, archive=archive, owner=owner, told=told)


def _place(source: Path) -> tuple[Path, str]:
    """The folder and the name of a source."""
    if not os.path.lexists(source):
        raise UsageError(f"{source}: no such file on this host")
    name = source.name
    if name in ("", ".", ".."):
        source = source.resolve()
        name = source.name
    if not name:
        raise UsageError(f"{source}: has no name that it could have in the guest")
    return source.parent, name


def _tar(places: Sequence[tuple[Path, str]], numbers: tuple[int | None, int | None]) -> list[str]:
    words = ["tar", "--create", "--file=-", "--format=posix", "--sparse", "--numeric-owner"]
    # Not our own access times and process number, so that the same files give the same stream.
    words += ["--xattrs", "--acls", "--selinux", "--pax-option=delete=atime,delete=ctime"]
    named = zip(("owner", "group"), numbers, strict=True)
    # NAME:ID without a name; tar takes "+ID" for root.
    words += [f"--{kind}=:{number}" for kind, number in named if number is not None]
    for folder, name in places:
        words += [f"--directory={folder.absolute()}", f"./{name}"]
    return words


def tar_in(archive: Path | BinaryIO, folder: bytes, *, told: Callable[[int], None]) -> Unpack:
    """The step that unpacks a tar file or stream in ``folder``; compression is found out.

    Raises UsageError for a file that is not there.
    """
    if isinstance(archive, Path) and not archive.is_file():
        raise UsageError(f"{archive}: no such file on this host", hint="- means stdin")

    @contextlib.contextmanager
    def opened(_numbers: tuple[int | None, int | None]) -> Iterator[BinaryIO]:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(archive.open("rb")) if isinstance(archive, Path) else archive
            buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)  # type: ignore[type-var]
            yield decompressed(cast("io.BufferedReader", buffered))

    return Unpack(path=folder, archive=opened, told=told)


def decompressed(stream: io.BufferedReader) -> BinaryIO:
    """The stream unpacked, by its first bytes; as it is if they are those of no compression."""
    head = stream.peek(512)
    is_tar = head[257:262] == b"ustar"  # else a file called "BZh" would make it bzip2
    kind = next((name for magic, name in _MAGIC if head.startswith(magic) and not is_tar), "")
    if kind == "gzip":
        return cast("BinaryIO", gzip.GzipFile(fileobj=stream))
    if kind == "bzip2":
        return cast("BinaryIO", bz2.BZ2File(stream))
    if kind in ("xz", "lzma"):
        return cast("BinaryIO", lzma.LZMAFile(stream))
    if kind == "zstd":
        try:
            from backports import zstd
        except ImportError as error:
            raise MissingBindingError(
                "zstd is not available",
                hint="pip install backports.zstd, or: zstd -dc FILE | ... -",
            ) from error
        return cast("BinaryIO", zstd.ZstdFile(stream))
    return stream
