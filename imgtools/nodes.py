"""Block nodes for qemu: every layer of a chain with its driver, its file and its backing node.

What is given to qemu in this form lets it probe nothing: each vetted layer becomes a node with an
explicit driver, file and backing node (``"backing": null`` at the base); what a header says about
backing files is never read, and names may hold anything, as JSON has no separators to escape.
Files are opened with ``locking=off``: we hold the locks ourselves, or read beside a running guest,
which is neither disturbed nor kept from starting.  Option names: qemu's qapi/block-core.json.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from imgtools.errors import ImageNotFoundError, ImageUnreadableError, ImageUnsupportedError
from imgtools.model.disks import ImageLayer

Node = dict[str, Any]

# Formats whose qemu driver knows the option "backing" (supports_backing in block/*.c).
WITH_BACKING = ("qcow2", "qcow", "qed", "vmdk")
# The protocols of block/curl.c, by the names of their drivers.
OF_CURL = ("http", "https", "ftp", "ftps")


def chain_node(
    layers: Sequence[ImageLayer], folder: Path, index: int = 0, *, writable: bool = False
) -> Node:
    """The node of the chain ``layers``, the active layer first; it has at least one.

    With ``writable`` the active layer may be written; the layers below never.  ``folder`` is a
    private one for links to files whose names are not UTF-8, and outlives the node.  Raises
    ImageNotFoundError, ImageUnreadableError, ImageUnsupportedError.
    """
    node: Node | None = None
    for depth, layer in reversed(list(enumerate(layers))):
        alias = folder / f"disk{index}.layer{depth}"
        node = _layer_node(layer, node, partial(json_name, alias=alias))
        if writable and depth == 0:
            for part in (node, node["file"], node.get("data-file", {})):
                part.pop("read-only", None)
    assert node is not None
    return node


def spec(node: Node) -> str:
    """``node`` as a file name that every program of qemu takes."""
    return "json:" + json.dumps(node)


def file_node(path: Path, name: Callable[[Path], str]) -> Node:
    """The read-only protocol node of a file or block device.

    Raises ImageNotFoundError, ImageUnreadableError.
    """
    try:
        is_device = stat.S_ISBLK(path.stat().st_mode)
    except FileNotFoundError:
        raise ImageNotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageUnreadableError(f"{path}: {error.strerror}") from error
    driver = "host_device" if is_device else "file"
    return {"driver": driver, "filename": name(path), "locking": "off", "read-only": True}


def json_name(path: Path, alias: Path) -> str:
    """``path`` as JSON can hold it: by the link ``alias``, made if its bytes are not UTF-8."""
    text = str(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        if not alias.is_symlink():
            alias.symlink_to(path)
        return str(alias)
    return text


def _beside_extents(path: Path, layer: ImageLayer, name: Callable[[Path], str]) -> str:
    """As ``name`` says, but qemu finds the extents, which it seeks where the descriptor lies."""
    found = Path(name(path))
    if found == path:
        return str(found)
    folder = found.with_name(f"{found.name}.files")
    if not folder.exists():
        folder.mkdir()
        (folder / found.name).symlink_to(path)
        for extent in layer.extents:
            if extent.parent == path.parent:
                (folder / extent.name).symlink_to(extent)
    return str(folder / found.name)


def _layer_node(layer: ImageLayer, backing: Node | None, name: Callable[[Path], str]) -> Node:
    if layer.node is not None:
        return dict(layer.node)
    # LUKS on the whole disk is opened in the appliance, with the keys, like any LUKS volume.
    driver = "raw" if layer.format == "luks" else layer.format
    if layer.snapshot_table is not None:
        # qemu loads an internal snapshot only in qemu-img and qemu-nbd, never by -blockdev.
        raise ImageUnsupportedError(
            f"{layer.path}: the appliance cannot read an internal snapshot",
            hint="copy it out first: imgtools convert -l snapshot.name=NAME -O qcow2 IMAGE COPY",
        )
    if driver == "vmdk" and layer.extents:
        name = partial(_beside_extents, layer=layer, name=name)
    node: Node = {"driver": driver, "read-only": True, "file": file_node(layer.path, name)}
    if driver in WITH_BACKING:
        node["backing"] = backing
    if driver == "qcow2" and layer.extents:
        node["data-file"] = file_node(layer.extents[0], name)
    # The extents of a VMDK have no place in -blockdev's schema: qemu opens them by the names in
    # the descriptor, which were vetted.
    return node
