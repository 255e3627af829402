"""Write what an overlay holds into the image below it, in place.

Every layer is committed onto the base alone, the lowest one first: then the base shows what that
layer shows, so that the next one may rest on it directly.  This needs no name by which qemu would
have to find the base in a chain.  Meanwhile the overlay shows the same at every moment, whatever
state the base is in, as its own clusters come first; ``qemu-img commit`` brings the base to its
storage before it empties an overlay (mirror_flush in block/mirror.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imgtools.image.inplace import alone
from imgtools.image.job import Report, run_job, silent
from imgtools.model.disks import ImageLayer
from imgtools.nodes import chain_node, spec


def commit_layers(
    layers: Sequence[ImageLayer],
    base: int,
    folder: Path,
    report: Report = silent,
    *,
    empty: bool = False,
) -> None:
    """Write the layers above the one of index ``base`` into it; done again it gives the same.

    With ``empty`` the overlay is emptied at the end: only for a base that is directly below it.
    ``folder`` is a private one.  Raises ToolError.
    """
    assert base == 1 or not empty
    below = chain_node(layers[base:], folder, 1, writable=True)
    for number, layer in enumerate(reversed(layers[:base])):

        def part(done: float, before: int = number) -> None:
            report((before + done) / base)

        node = {**alone(layer, folder), "backing": below}
        keep = () if empty else ("-d",)
        run_job(["qemu-img", "commit", "-p", *keep, spec(node)], part)
