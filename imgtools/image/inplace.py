"""What every change of an image in its place begins with: the references checked, leaks given back.

A killed qemu may leave clusters that it had reserved and not used yet.  They cost space and nothing
else, so that the next run gives them back.  References to clusters that are not there, or not
counted, are damage: such an image is not written to.
"""

from __future__ import annotations

import re
from pathlib import Path

from imgtools.errors import ImageError, ToolError
from imgtools.image.job import run_job
from imgtools.image.vet import vet
from imgtools.model import ImageLayer
from imgtools.nodes import Node, chain_node, spec

_LEAKS = 3  # exit status of qemu-img check: leaked clusters, and nothing worse
_SPEC = re.compile(r"'?json:\{.*\}'?:? ?")
_CHECKED = ("qcow2", "qed")


def alone(layer: ImageLayer, folder: Path) -> Node:
    """The writable node of one layer, without what is below it."""
    return chain_node([layer], folder, writable=True)


def mend_leaks(layer: ImageLayer, folder: Path) -> bool:
    """Give back what a killed run had reserved; True if there was something.

    Raises ImageError for damage, ToolError.
    """
    if layer.format not in _CHECKED:
        return False
    name = spec(alone(layer, folder))
    look = ("qemu-img", "check", "-q")
    # A dirty image says itself that its reference counts are not to be trusted.  qemu counts
    # anew when it opens one for writing, and "check" is the only command that does not.
    dirty = vet(layer.path, layer.format).dirty
    if dirty:
        run_job([*look, "-r", "all", name], good=(0, 2, _LEAKS))
    status = run_job([*look, name], good=(0, 2, _LEAKS)).status
    if status == 2:
        raise ImageError(
            f"{layer.path}: the image is damaged",
            hint="copy it, then look what can be mended: imgtools image check",
        )
    if status == _LEAKS:
        run_job([*look, "-r", "leaks", name], good=(0, _LEAKS))
    return dirty or status == _LEAKS


def space_error(error: ToolError) -> bool:
    """Did qemu-img end because the storage is full?"""
    return "No space left on device" in error.message or "File too large" in error.message


def without_nodes(text: str) -> str:
    """A message of qemu-img without the nodes in it, which tell a user nothing."""
    return _SPEC.sub("", text.removeprefix("qemu-img: "))
