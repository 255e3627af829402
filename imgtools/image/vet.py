"""Vet an image: say what its header says, opening nothing that the header names.

A format that is stated (by the user, the domain, a ``.raw`` suffix or the overlay above) is not
second-guessed: raw content that begins with an image header stays raw, since a guest can write
any header into its own disk.  Only where nothing is stated does the header decide.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from imgtools.errors import UsageError
from imgtools.image.header import ImageHeader, Problem
from imgtools.image.signature import detect
from imgtools.image.source import Source, open_source

# Beyond this neither qemu (BDRV_MAX_LENGTH, INT64_MAX rounded down to 1 GiB) nor a Linux guest's
# block layer can address a disk; half of it already exceeds what any file system holds.
MAX_VIRTUAL_SIZE = 1 << 61


class _Vetter(Protocol):
    def __call__(self, source: Source, *, stated: bool) -> ImageHeader: ...


def vet(path: Path, image_format: str | None = None) -> ImageHeader:
    """Read the header of the image at ``path``, as ``image_format`` if stated (qemu's name).

    Never blocks on a FIFO or device, never reads more than bounded tables, follows nothing.
    Raises ImageNotFoundError, ImageUnreadableError, ImageTruncatedError or ImageError when
    there is no header to speak of; anything less is a problem of the result.
    """
    with open_source(path) as source:
        return vet_source(source, image_format)


def vet_source(source: Source, image_format: str | None = None) -> ImageHeader:
    """Vet an image that is open already; see `vet`."""
    if image_format is None and source.path.suffix.lower() == ".raw":
        image_format = "raw"
    stated = image_format is not None
    kind = image_format or detect(source)
    vetter = vet_raw if kind == "raw" else _vetter(kind)
    return _bounded(vetter(source, stated=stated))


def _bounded(header: ImageHeader) -> ImageHeader:
    if header.virtual_size <= MAX_VIRTUAL_SIZE or header.fatal:
        return header
    problem = Problem(
        code="image.size",
        message=f"the virtual size of {header.virtual_size} bytes is beyond what can be addressed",
    )
    return replace(header, problems=(*header.problems, problem))


def vet_raw(source: Source, *, stated: bool) -> ImageHeader:
    """A raw image is what it is; only notice when its content poses as another format."""
    problems: tuple[Problem, ...] = ()
    posing = detect(source) if stated else "raw"
    if posing not in ("raw", "luks"):
        problems = (
            Problem(
                code="raw.poses",
                message=f"the content of this raw image begins like a {posing} image; "
                "it is read as raw, as stated",
                fatal=False,
            ),
        )
    return ImageHeader(
        path=source.path,
        format="raw",
        stated=stated,
        file_size=source.size,
        virtual_size=(source.size + 511) // 512 * 512,
        identity=source.identity,
        problems=problems,
    )


def _vetter(kind: str) -> _Vetter:
    """The function that vets ``kind``; only its module is loaded."""
    found = _VETTERS.get(kind)
    if found is None:
        known = ", ".join(["raw", *_VETTERS])
        raise UsageError(f"{kind}: unknown image format", hint=f"known: {known}")
    module = importlib.import_module(f"imgtools.image.{found[0]}")
    return cast("_Vetter", getattr(module, found[1]))


_VETTERS = {
    "qcow2": ("vet_qcow2", "vet"),
    "qcow": ("vet_small", "vet_qcow"),
    "vmdk": ("vet_vmdk", "vet"),
    "vdi": ("vet_vdi", "vet"),
    "vpc": ("vet_vhd", "vet"),
    "vhdx": ("vet_vhdx", "vet"),
    "qed": ("vet_small", "vet_qed"),
    "luks": ("vet_small", "vet_luks"),
    "parallels": ("vet_small", "vet_parallels"),
    "bochs": ("vet_readonly", "vet_bochs"),
    "cloop": ("vet_readonly", "vet_cloop"),
    "dmg": ("vet_dmg", "vet"),
}
