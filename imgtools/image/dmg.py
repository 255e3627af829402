"""Can this qemu-img read all of a dmg?  bzip2 and lzfse are modules, which it may lack.

It would give an I/O error in the middle of a copy, so the first such chunk is read before.
"""

from __future__ import annotations

from imgtools.errors import ImageUnsupportedError, ToolError
from imgtools.image.source import open_source
from imgtools.image.vet_dmg import first_by_module
from imgtools.model.disks import ImageLayer
from imgtools.nodes import Node, spec
from imgtools.process import run

TIMEOUT = 60.0


def refuse_unreadable(layer: ImageLayer, node: Node) -> None:
    """Raise ImageUnsupportedError where qemu-img lacks the compression of a dmg, its ``node``."""
    with open_source(layer.path) as source:
        found = first_by_module(source)
    if found is None:
        return
    name, offset = found
    try:
        words = ["-c", "1", "-d", "1", "-s", "512", "-o", str(offset), spec(node)]
        run(["qemu-img", "bench", *words], timeout=TIMEOUT)
    except ToolError as error:
        raise ImageUnsupportedError(
            f"{layer.path}: is compressed by {name}, which this qemu-img cannot read",
            hint="some systems have it as the package qemu-block-dmg or qemu-block-extra; or "
            "convert it on a Mac: hdiutil convert -format UDZO",
        ) from error
