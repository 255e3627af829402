"""Change the options of an image with ``qemu-img amend``, on a copy-on-write view of its file.

The image's driver stands on an overlay of the file's own bytes, so that the file stays as it is and
the overlay has the changed blocks, to be committed as one change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from imgtools import nodes
from imgtools.errors import ToolError
from imgtools.image.options import option_words
from imgtools.image.secret import Secrets, run_with
from imgtools.model.disks import ImageLayer
from imgtools.nodes import Node
from imgtools.process import run

TIMEOUT = 24 * 3600.0


def file_overlay(image: Path, overlay: Path, folder: Path) -> Node:
    """The node of the file's bytes as the overlay changes them."""
    name = nodes.json_name(overlay, folder / "overlay")
    below = nodes.file_node(image, lambda path: nodes.json_name(path, folder / "image"))
    return {
        "driver": "qcow2",
        "file": {"driver": "file", "filename": name},
        "backing": {"driver": "raw", "read-only": True, "file": below},
    }


def image_node(
    layers: Sequence[ImageLayer], file: Node, folder: Path, *, luks: bool, key: bool
) -> Node:
    """The image on ``file`` with its chain below; ``luks``: it is a LUKS container itself.

    With ``key`` it is opened with the secret ``key``.  The backing files count: qemu would let go
    of clusters of zeros that it takes for not backed.
    """
    if luks:
        return {"driver": "luks", "key-secret": "key", "file": file}
    node = nodes.chain_node(layers, folder, writable=True)
    node["file"] = file
    if key:
        node["encrypt"] = {"format": "luks", "key-secret": "key"}
    return node


def amend(node: Node, options: Mapping[str, str], secrets: Secrets) -> None:
    """Give the image these options.  Raises ToolError."""
    words = [*secrets.words, *option_words(options)]
    try:
        run_with(secrets, ["qemu-img", "amend", "-q", *words, nodes.spec(node)], timeout=TIMEOUT)
    except ToolError as error:
        why = error.message.replace(nodes.spec(node), "").removeprefix("qemu-img: ")
        raise ToolError(f"qemu-img amend: {why}") from error


def end_of(node: Node, secrets: Secrets) -> int:
    """Check the image, and return the byte at which it ends in its file.  Raises ToolError."""
    argv = ["qemu-img", "check", "--output=json", *secrets.words, nodes.spec(node)]
    return int(json.loads(run_with(secrets, argv, timeout=TIMEOUT))["image-end-offset"])


def cut(file: Node, size: int) -> None:
    """Make the overlay end where the file will.  Raises ToolError."""
    run(["qemu-img", "resize", "-q", "--shrink", nodes.spec(file), str(size)], timeout=TIMEOUT)
