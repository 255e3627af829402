"""Which overlays beside an image rest on it: they would not fit it any more once it changed."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from imgtools.errors import ImgtoolsError
from imgtools.image.reference import resolve_reference
from imgtools.image.vet import vet

MAX_ENTRIES = 5000
_MAGICS = (b"QFI\xfb", b"QED\0")


def overlays_of(image: Path, folder: Path | None = None) -> list[Path]:
    """The qcow2 and qed images in a folder, else the image's own, that name it as backing file.

    Only headers are read; what cannot be read is left out, as is what lies elsewhere.
    """
    found = []
    real = os.path.realpath(image)
    with os.scandir(folder or image.parent) as entries:
        files = [Path(entry.path) for entry in islice(entries, MAX_ENTRIES) if entry.is_file()]
    for path in sorted(files):
        try:
            with path.open("rb") as stream:
                if stream.read(4) not in _MAGICS:
                    continue
            header = vet(path, None)
            if header.backing_file is None:
                continue
            target = resolve_reference(header.backing_file, path, "backing file")
            if os.path.realpath(target) == real and os.path.realpath(path) != real:
                found.append(path)
        except (ImgtoolsError, OSError):
            continue
    return found
