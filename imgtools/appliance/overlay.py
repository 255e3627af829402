"""Throw-away overlays with every lower layer pinned, so that qemu probes nothing.

libguestfs's own read-only drives let qemu probe guest bytes: a raw image whose first sector is a
qcow2 header shows the host file that the header names.  Here each vetted layer becomes a block
node with everything explicit (see ``imgtools.nodes``), given to qemu by ``-blockdev``; the overlay
refers to the top node by its name.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from imgtools import nodes
from imgtools.appliance.remote import remote_node
from imgtools.errors import (
    ApplianceSpaceError,
    ImageError,
    ImageUnreadableError,
    ImageUnsupportedError,
    SpaceError,
    ToolError,
)
from imgtools.model.disks import Disk
from imgtools.nodes import Node, json_name
from imgtools.process import run

OPEN_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """A made overlay: ``path`` is ours to write, ``blockdev`` is the node below it, as JSON."""

    path: Path
    blockdev: str
    virtual_size: int


def make_overlay(
    disk: Disk, index: int, folder: Path, path: Path | None = None, *, size: int | None = None
) -> Overlay:
    """Make the qcow2 overlay of ``disk`` in ``folder``, or at ``path`` (an older one is replaced).

    Its virtual size is the disk's, or ``size`` bytes.

    Opens the pinned chain in qemu-img first: damage is one line now and not a failed
    launch later.  Raises ImageError and its kin, MissingToolError, ApplianceSpaceError,
    or SpaceError for one at ``path``.
    """
    node = chain_node(disk, folder, index)
    size = size or _probe_size(disk, node)
    name = f"disk{index}"
    path = path or folder / f"{name}.qcow2"
    _make_private(path)
    reference = "json:" + json.dumps({"driver": "raw", "file": name})
    try:
        run(
            [
                *("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw"),
                *("-b", reference, str(path), str(size)),
            ]
        )
    except ToolError as error:
        if path.parent == folder:
            raise ApplianceSpaceError(
                f"cannot make an overlay in {folder.parent}: {error.message}",
                hint="free some space there, or set TMPDIR to a folder on another disk",
            ) from error
        raise SpaceError(
            f"cannot make an overlay in {path.parent}: {error.message}; the image is as it was",
            hint="free some space there, or name a folder on another disk with --workdir",
        ) from error
    return Overlay(path=path, blockdev=json.dumps({**node, "node-name": name}), virtual_size=size)


def _make_private(path: Path) -> None:
    """An empty file that only we may read: an overlay holds what the guest keeps secret."""
    try:
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise ApplianceSpaceError(
            f"{path}: cannot be made: {error.strerror}",
            hint="name a folder where you may write with --workdir, or by TMPDIR",
        ) from error


def chain_node(disk: Disk, folder: Path, index: int = 0, *, writable: bool = False) -> Node:
    """The pinned block node of everything below the overlay of ``disk``.

    With ``writable`` its active layer may be written (a commit); the layers below never.
    """
    if not disk.layers:
        return remote_node(disk, folder)
    return nodes.chain_node(disk.layers, folder, index, writable=writable)


def commit_node(disk: Disk, overlay: Path, folder: Path) -> Node:
    """The node that ``qemu-img commit`` takes: ``overlay`` on the pinned, writable ``disk``."""
    return {
        **overlay_node(overlay, folder),
        "backing": chain_node(disk, folder, writable=True),
    }


def overlay_node(overlay: Path, folder: Path) -> Node:
    """The node of an overlay of ours, without what is below."""
    name = json_name(overlay, folder / "overlay")
    return {"driver": "qcow2", "file": {"driver": "file", "filename": name}}


def _probe_size(disk: Disk, node: Node) -> int:
    # info does not open the backing nodes (and trips over their options): it gives the size of
    # the top one, and map then opens them all.
    alone = {**node, "backing": None} if "backing" in node else node
    spec = "json:" + json.dumps(alone)
    try:
        done = run(["qemu-img", "info", "--output=json", spec], timeout=OPEN_TIMEOUT)
        size = int(json.loads(done.stdout)["virtual-size"])
        if node.get("backing"):
            spec = "json:" + json.dumps(node)
            run(
                ["qemu-img", "map", "--output=json", "--max-length=512", spec], timeout=OPEN_TIMEOUT
            )
    except ToolError as error:
        raise _open_error(disk, error, spec) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{disk.name}: qemu-img gave no size for it") from error
    # A raw file may end within a sector; the kernel only sees whole ones.
    sector = disk.request.block_size
    return -(-size // sector) * sector


def _open_error(disk: Disk, error: ToolError, spec: str) -> ImageError:
    line = error.message.replace(spec, disk.name).removeprefix("qemu-img: ")
    line = line.removeprefix("Could not open ").replace(f"'{disk.name}': ", "", 1)
    if "Unknown driver" in line or "Unknown protocol" in line:
        return ImageUnsupportedError(
            f"{disk.name}: {line}",
            hint="apt-get install --no-install-recommends qemu-block-extra",
        )
    if "Permission denied" in line:
        return ImageUnreadableError(
            f"{disk.name}: Permission denied",
            hint=f"run as a user who can read it (uid {os.geteuid()} cannot)",
        )
    return ImageError(f"{disk.name}: {line}", hint="imgtools info shows what is wrong with it")
