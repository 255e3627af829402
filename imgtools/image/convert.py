"""Copy a disk into a new image, or onto one that exists, by ``qemu-img convert``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imgtools.errors import ImageError, ToolError
from imgtools.image.behind import written_behind
from imgtools.image.failure import failure
from imgtools.image.header import Snapshot
from imgtools.image.job import Report, run_job
from imgtools.image.readable import snapshot_words
from imgtools.image.secret import TARGET, Secrets, untimed_again
from imgtools.image.target import joined
from imgtools.image.vet import vet
from imgtools.nodes import OF_CURL, Node, spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How the data are written; ``sparse`` bytes of zeros become a hole, 0 keeps all as data.

    ``rate`` in bytes a second, ``coroutines`` work at once.
    """

    compress: bool = False
    bitmaps: bool = False
    skip_broken_bitmaps: bool = False
    salvage: bool = False
    out_of_order: bool = False
    coroutines: int | None = None
    sparse: int | None = None
    rate: int | None = None

    def words(self) -> list[str]:
        """The options for qemu-img."""
        flags = {
            "-c": self.compress,
            "--bitmaps": self.bitmaps,
            "--skip-broken-bitmaps": self.skip_broken_bitmaps,
            "--salvage": self.salvage,
            "-W": self.out_of_order,
        }
        values = {"-m": self.coroutines, "-S": self.sparse, "-r": self.rate}
        words = [flag for flag, given in flags.items() if given]
        for flag, value in values.items():
            words += [] if value is None else [flag, str(value)]
        return words


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is copied: a node (see `imgtools.image.readable`), its name for the user, its keys."""

    node: Node
    name: str
    snapshot: Snapshot | None = None
    keys: Secrets = field(default_factory=Secrets)


def convert(
    source: Source,
    path: Path,
    target_format: str,
    options: Mapping[str, str],
    writing: Writing,
    report: Report,
) -> None:
    """Make the image ``path``, whose folder is ours alone.

    Raises UsageError for options that do not fit, SpaceError, EncryptedError, ToolError, OSError.
    """
    words = ["-O", target_format, *joined(options)]
    with written_behind(path):
        _run(source, [*words, *writing.words()], os.fspath(path.absolute()), path, report)


def convert_onto(
    source: Source, path: Path, target: str, writing: Writing, report: Report, *, is_zero: bool
) -> None:
    """Copy onto ``path``, which we hold; ``target`` is what `onto_options` gives.

    ``is_zero``: it reads as zeros, which need not be written then.  Raises as `convert` does.
    """
    words = ["-n", "--target-image-opts", *(["--target-is-zero"] if is_zero else [])]
    _run(source, [*words, *writing.words()], target, path, report)


def onto_options(path: Path, target_format: str, *, key: bool = False) -> str:
    """The ``--target-image-opts`` of a file or device that we hold, with no layer below."""
    protocol = "host_device" if path.is_block_device() else "file"
    name = os.fspath(path.absolute()).replace(",", ",,")
    text = f"driver={target_format},file.driver={protocol},file.locking=off,file.filename={name}"
    if key and target_format == "luks":
        return f"{text},key-secret={TARGET}"
    return f"{text},encrypt.format=luks,encrypt.key-secret={TARGET}" if key else text


def _run(source: Source, words: list[str], target: str, path: Path, report: Report) -> None:
    node = spec(source.node)
    if source.node.get("file", {}).get("driver") in OF_CURL:
        # With several requests at once qemu 7.2's driver hangs: of ten copies nine.
        words = [*words, "-m", "1"]
    argv = ["qemu-img", "convert", "-p", *source.keys.words, *words]
    argv += [*snapshot_words(source.snapshot), node, target]
    try:
        untimed_again(lambda: run_job(argv, report, pass_fds=source.keys.fds))
    except ToolError as error:
        raise failure(error, path.name, {node: source.name, target: path.name}) from error


def cut_to(path: Path, target_format: str, size: int) -> None:
    """Make a new raw or qcow2 image smaller: qemu-img copies a snapshot in the disk's own size.

    Raises ToolError.
    """
    words = ["-q", "--shrink", "-f", target_format, os.fspath(path.absolute()), str(size)]
    run_job(["qemu-img", "resize", *words])


def check_size(path: Path, target_format: str, size: int) -> None:
    """Raise ImageError unless the new image's header says that it has ``size`` bytes.

    A format may round, and a guest's partition table counts from the end.
    """
    if target_format == "luks":
        return  # its size is that of the file less the header
    found = vet(path, target_format).virtual_size
    if found != size:
        raise ImageError(
            f"{path.name}: a {target_format} image of {size} bytes became one of {found} bytes",
            hint="choose another format, or give the source a whole number of MiB first",
        )
