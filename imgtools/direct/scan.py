"""Find every volume on a set of disks: partitions, RAID arrays, LUKS and LVM in any order.

The order of discovery follows the appliance's /init and guestfs-tools: arrays, then encrypted
volumes, then LVM, then again for what those uncovered; each round must find something new, and
there are `MAX_ROUNDS` of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from imgtools.direct import lvm, md, probe
from imgtools.direct.disk import open_disk
from imgtools.direct.partitions import Table, read_table
from imgtools.direct.streams import CACHE_BLOCKS, BlockStream, Cached, Window
from imgtools.errors import DamagedError, DirectUnsupportedError
from imgtools.model.disks import Disk, KeySpec
from imgtools.model.notices import Notice
from imgtools.model.storage import LuksVolume, MdDevice, unique_vg_names

MAX_ROUNDS = 8
MAX_DISKS = 255
NodeKind = Literal["disk", "partition", "md", "dm", "lv"]


@dataclass(slots=True, kw_only=True)
class Node:
    """A block device of the guest: a disk or something made of others."""

    name: str
    kind: NodeKind
    stream: BlockStream
    parents: tuple[str, ...] = ()
    disks: frozenset[int] = frozenset()
    table: Table | None = None
    found: probe.Probe | None = None
    number: int = 0

    @property
    def partitioned(self) -> bool:
        """True when the kernel shows partitions on it, so that it holds nothing itself."""
        return self.table is not None and bool(self.table.entries)


@dataclass(slots=True, kw_only=True)
class NamedVg:
    """A volume group under the name that is unique here."""

    name: str
    vg: lvm.Vg


@dataclass(slots=True, kw_only=True)
class Scan:
    """All devices by name, and the layers that made them."""

    nodes: dict[str, Node] = field(default_factory=dict)
    mds: list[MdDevice] = field(default_factory=list)
    luks: list[LuksVolume] = field(default_factory=list)
    pvs: list[lvm.Pv] = field(default_factory=list)
    vgs: list[NamedVg] = field(default_factory=list)
    warnings: list[Notice] = field(default_factory=list)

    def siblings(self, node: Node) -> list[BlockStream]:
        """The other devices of a btrfs that spans several."""
        if node.found is None or node.found.type != "btrfs" or not node.found.uuid:
            return []
        return [
            other.stream
            for other in self.nodes.values()
            if other is not node
            and other.found is not None
            and (other.found.type, other.found.uuid) == ("btrfs", node.found.uuid)
        ]

    def of_kind(self, kind: NodeKind) -> list[Node]:
        """The devices of one kind, in the order found."""
        return [node for node in self.nodes.values() if node.kind == kind]


def disk_name(index: int) -> str:
    """``/dev/sda`` for 0, ``/dev/sdz`` for 25, ``/dev/sdaa`` for 26."""
    letters = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return f"/dev/sd{letters}"


def scan(disks: Sequence[Disk], keys: Sequence[KeySpec]) -> Scan:
    """Open the disks and everything on them.  Raises DirectError, ImageUnreadableError."""
    if len(disks) > MAX_DISKS:
        raise DirectUnsupportedError(f"{len(disks)} disks are too many")
    result = Scan()
    scanner = _Scanner(result, keys, max(16, CACHE_BLOCKS // max(1, len(disks))))
    for index, disk in enumerate(disks):
        scanner.add_disk(disk, index)
    scanner.run()
    return result


class _Scanner:
    def __init__(self, result: Scan, keys: Sequence[KeySpec], cache_blocks: int) -> None:
        self.result = result
        self.cache_blocks = cache_blocks
        self.keys = keys
        self.members: list[Node] = []
        self.encrypted: list[Node] = []
        self.grouped = 0

    def add_disk(self, disk: Disk, index: int) -> None:
        stream = open_disk(disk, cache_blocks=self.cache_blocks)
        sector = disk.request.block_size
        name = disk_name(index)
        table = read_table(stream, sector, name)
        disks = frozenset((index,))
        node = Node(name=name, kind="disk", stream=stream, disks=disks, table=table)
        self.result.nodes[name] = node
        if table is None or not table.entries:
            return
        if md.covers_whole_disk(stream, max(entry.size for entry in table.entries), name):
            raise DirectUnsupportedError(f"{name}: partitions on a disk of an MD array")
        for entry in table.entries:
            self.result.nodes[f"{name}{entry.number}"] = Node(
                name=f"{name}{entry.number}",
                kind="partition",
                stream=Window(stream, entry.start, entry.size),
                parents=(name,),
                disks=disks,
                number=entry.number,
            )

    def run(self) -> None:
        for _ in range(MAX_ROUNDS):
            self._probe_new()
            if not (self._assemble_md() or self._open_luks() or self._assemble_lvm()):
                return
        raise DirectUnsupportedError("volumes are nested too deeply")

    def _add(self, node: Node) -> None:
        if node.name in self.result.nodes:
            raise DamagedError(f"{node.name}: two devices would have this name")
        self.result.nodes[node.name] = node

    def _probe_new(self) -> None:
        for node in list(self.result.nodes.values()):
            if node.found is not None or node.partitioned or _is_extended(self.result, node):
                continue
            node.found = probe.probe(node.stream, node.name)
            if node.found.type == "LVM2_member":
                self._add_pv(node)
            elif node.found.type == "linux_raid_member":
                self.members.append(node)
            elif node.found.type == "crypto_LUKS":
                self.encrypted.append(node)

    def _add_pv(self, node: Node) -> None:
        if node.kind == "lv":  # LVM does not look inside its own volumes
            return
        if any(array.degraded and array.name == node.name for array in self.result.mds):
            # The appliance starts degraded arrays only after it has activated LVM.
            raise DirectUnsupportedError(f"{node.name}: LVM on a degraded MD array")
        self.result.pvs.append(lvm.scan_pv(node.stream, node.name))

    def _assemble_md(self) -> bool:
        """Start the arrays of the members found since the last round."""
        if not self.members:
            return False
        arrays = md.assemble([md.read_member(node.stream, node.name) for node in self.members])
        self.members = []
        if len(arrays) + len(self.result.mds) > 1:
            # In which order mdadm numbers several arrays depends on timing in the appliance.
            raise DirectUnsupportedError("several MD arrays, whose names are not certain")
        for array in arrays:
            self._add_md(array)
        return True

    def _add_md(self, array: md.Array) -> None:
        name = f"/dev/md{_array_number(array)}"
        stream = Cached(array.stream, name)
        if read_table(stream, 512, name):
            raise DirectUnsupportedError(f"{name}: partitions on an MD array")
        self._add(
            Node(
                name=name,
                kind="md",
                stream=stream,
                parents=array.devices,
                disks=self._disks(array.devices),
            )
        )
        self.result.mds.append(
            MdDevice(
                name=name,
                size=stream.size,
                level=array.level,
                uuid=array.uuid,
                parents=array.devices,
                degraded=array.degraded,
                set_name=array.name.rpartition(":")[2],
            )
        )

    def _disks(self, devices: Sequence[str]) -> frozenset[int]:
        return frozenset[int]().union(*(self.result.nodes[name].disks for name in devices))

    def _open_luks(self) -> bool:
        """Open the encrypted volumes found since the last round, as far as keys were given."""
        fresh, self.encrypted = self.encrypted, []
        opened = [self._open_one_luks(node) for node in fresh]
        return any(opened)

    def _open_one_luks(self, node: Node) -> bool:
        from imgtools.direct import luks

        header = luks.read_header(node.stream, node.name)
        secrets = luks.keys_for(node.name, header.uuid, self.keys)
        stream = luks.open_luks(node.stream, header, secrets, node.name) if secrets else None
        mapped = _mapped_name(node, header.uuid) if stream else None
        self.result.luks.append(
            LuksVolume(device=node.name, uuid=header.uuid, version=header.version, mapped=mapped)
        )
        if stream is None or mapped is None:
            reason = "no key given opens it" if self.keys else "no key was given"
            message = f"{node.name}: is encrypted and {reason}"
            self.result.warnings.append(Notice(code="image.encrypted", message=message))
            return False
        self._add(
            Node(
                name=mapped,
                kind="dm",
                stream=Cached(stream, mapped),
                parents=(node.name,),
                disks=node.disks,
            )
        )
        return True

    def _assemble_lvm(self) -> bool:
        """Make the volume groups, once nothing but LVM is left to open."""
        fresh = self.result.pvs[self.grouped :]
        if not fresh:
            return False
        self.grouped = len(self.result.pvs)
        groups = lvm.assemble(fresh)
        old = [(named.vg.name, named.vg.uuid) for named in self.result.vgs]
        names = unique_vg_names(old + [(vg.name, vg.uuid) for vg in groups])[len(old) :]
        for name, vg in zip(names, groups, strict=True):
            self.result.vgs.append(NamedVg(name=name, vg=vg))
            for lv in vg.lvs:
                self._add_lv(name, lv)
        return True

    def _add_lv(self, vg_name: str, lv: lvm.Lv) -> None:
        self._add(
            Node(
                name=f"/dev/{vg_name}/{lv.name}",
                kind="lv",
                stream=Cached(lv.stream, f"/dev/{vg_name}/{lv.name}")
                if len(lv.devices) > 1
                else lv.stream,
                parents=lv.devices,
                disks=self._disks(lv.devices),
            )
        )


def _array_number(array: md.Array) -> int:
    """The number that mdadm gives the only array: its own in the old format, else the last one."""
    if array.minor is not None:
        return array.minor
    host, _, own = array.name.rpartition(":")
    if own.isdigit() and host in ("", "(none)"):  # might be taken for one of the appliance's
        raise DirectUnsupportedError(f"MD array {array.name}: its name is not certain")
    return 127


def _mapped_name(node: Node, uuid: str) -> str:
    """The name under which guestfs-tools opens an encrypted volume (options/decrypt.c)."""
    if node.kind == "lv":
        return f"/dev/mapper/luks-{uuid}"
    kept = "".join(char for char in node.name.removeprefix("/dev/") if char.isalnum())
    return f"/dev/mapper/crypt{kept}"


def _is_extended(result: Scan, node: Node) -> bool:
    if node.kind != "partition":
        return False
    table = result.nodes[node.parents[0]].table
    assert table is not None
    return any(entry.number == node.number and entry.extended for entry in table.entries)
