"""The direct engine: `model.Engine` over dissect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from imgtools.direct.guard import guard
from imgtools.direct.listing import list_storage
from imgtools.direct.scan import Node, Scan, scan
from imgtools.errors import DirectUnsupportedError, ImgtoolsError
from imgtools.model.disks import Disk, KeySpec
from imgtools.model.files import FileTree
from imgtools.model.storage import Storage
from imgtools.swap import is_clear

READABLE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "ntfs", "vfat", "exfat", "squashfs")


class DirectEngine:
    """Reads the disks in this process.  Implements `model.Engine`."""

    def __init__(self, disks: Sequence[Disk], keys: Sequence[KeySpec]) -> None:
        self._disks = tuple(disks)
        self._keys = tuple(keys)
        self._scan: Scan | None = None
        self._storage: Storage | None = None
        self._trees: dict[str, FileTree] = {}

    @property
    def name(self) -> Literal["direct"]:
        """The engine's name in results."""
        return "direct"

    def storage(self) -> Storage:
        """Everything on the disks, found once."""
        if self._storage is None:
            with guard("the disks"):
                self._scan = scan(self._disks, self._keys)
                self._storage = list_storage(self._scan)
        return self._storage

    def mount(self, device: str) -> FileTree:
        """The file tree of a mountable that `storage` listed."""
        if device not in self._trees:
            self.storage()
            with guard(device):
                self._trees[device] = self._open(device)
        return self._trees[device]

    def _open(self, device: str) -> FileTree:
        from imgtools.direct.filesystems import open_filesystem

        found = next((fs for fs in self.storage().filesystems if fs.device == device), None)
        if found is None:
            raise ImgtoolsError(f"{device}: no such filesystem on the disks")
        if found.type not in READABLE:
            raise DirectUnsupportedError(f"{device}: the direct engine cannot read {found.type}")
        node, subvolume = self._locate(device)
        assert self._scan is not None
        streams = [node.stream, *self._scan.siblings(node)]
        return open_filesystem(found.type, list(streams), subvolume=subvolume)

    def _locate(self, device: str) -> tuple[Node, bytes | None]:
        assert self._scan is not None
        if not device.startswith("btrfsvol:"):
            return self._scan.nodes[device], None
        path = device.removeprefix("btrfsvol:")
        names = [name for name in self._scan.nodes if path.startswith(name + "/")]
        name = max(names, key=len)
        return self._scan.nodes[name], path[len(name) + 1 :].encode("utf-8", "surrogateescape")

    def swap_is_clear(self, device: str) -> bool:
        """True if the swap space on ``device`` has no content."""
        self.storage()
        node, _ = self._locate(device)
        with guard(device):
            node.stream.seek(0)
            return is_clear(node.stream)

    def close(self) -> None:
        """Release the files.  Idempotent."""
        self._trees.clear()
        if self._scan is not None:
            for node in self._scan.of_kind("disk"):
                node.stream.close()
            self._scan = None
