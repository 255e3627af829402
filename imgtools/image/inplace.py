"""What every change of an image in its place begins with: the references checked, leaks given back.

A killed qemu may leave clusters that it had reserved and not used yet.  They cost space and nothing
else, so that the next run gives them back.  Killed while it makes or applies a snapshot it also
leaves marks "used once" (OFLAG_COPIED) that do not fit the counts, which are too high then; both
follow from the references and are set anew.  References to clusters that are not there, or not
counted, are damage: such an image is not written to.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from imgtools.errors import ImageError, ToolError
from imgtools.image.check import MARKS
from imgtools.image.job import run_job
from imgtools.image.vet import vet
from imgtools.model.disks import ImageLayer
from imgtools.nodes import Node, chain_node, spec
from imgtools.process import running

_CORRUPT, _LEAKS = 2, 3  # exit status of qemu-img check; 3: leaked clusters and nothing worse
_MARKS = MARKS.encode()
_SPEC = re.compile(r"'?json:\{.*\}'?:? ?")
_CHECKED = ("qcow2", "qed")


def alone(layer: ImageLayer, folder: Path) -> Node:
    """The writable node of one layer, without what is below it."""
    return chain_node([layer], folder, writable=True)


def mend_leaks(layer: ImageLayer, folder: Path) -> bool:
    """Set right what a killed run had left; True if there was something.

    Raises ImageError for damage, ToolError.
    """
    if layer.format not in _CHECKED:
        return False
    name = spec(alone(layer, folder))
    # A dirty image says itself that its reference counts are not to be trusted.  qemu counts
    # anew when it opens one for writing, and "check" is the only command that does not.
    dirty = vet(layer.path, layer.format).dirty
    if dirty:
        _repair(name, "all")
    found = _look(name)
    if found.damage:
        raise _damaged(layer.path)
    if found.status:
        _repair(name, "leaks")
    if found.marks:
        _repair(name, "all")
        if _look(name).status:
            raise _damaged(layer.path)
    return dirty or bool(found.status)


def left_by_a_killed_run(layer: ImageLayer, folder: Path) -> bool:
    """Is there something that `mend_leaks` would set right?  Nothing is written.

    Raises ImageError for damage, ToolError.
    """
    if layer.format not in _CHECKED:
        return False
    found = _look(spec(chain_node([layer], folder)))
    # A dirty image has no counts to be compared with: they are all to be made anew.
    dirty = vet(layer.path, layer.format).dirty
    if found.damage and not dirty:
        raise _damaged(layer.path)
    return dirty or bool(found.status)


class _Found(NamedTuple):
    """What a look at all references showed; with ``damage`` nothing may be repaired."""

    status: int
    marks: bool = False
    damage: bool = False


def _look(name: str) -> _Found:
    """Check an image that may have as many errors as clusters."""
    marks = damage = False
    with running(["qemu-img", "check", name]) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(_MARKS):
                marks = True
            elif line.startswith(b"ERROR"):
                damage = True
        status = child.wait()
    if status not in (0, _CORRUPT, _LEAKS):
        raise ToolError(f"qemu-img check: ended with status {status}")
    return _Found(status, marks, damage or (status == _CORRUPT and not marks))


def _repair(name: str, what: str) -> None:
    run_job(["qemu-img", "check", "-q", "-r", what, name], good=(0, _CORRUPT, _LEAKS))


def _damaged(path: Path) -> ImageError:
    return ImageError(
        f"{path}: the image is damaged",
        hint="copy it, then look what can be mended: imgtools image check",
    )


def space_error(error: ToolError) -> bool:
    """Did qemu-img end because the storage is full?"""
    return "No space left on device" in error.message or "File too large" in error.message


def without_nodes(text: str) -> str:
    """A message of qemu-img without the nodes in it, which tell a user nothing."""
    return _SPEC.sub("", text.removeprefix("qemu-img: "))
