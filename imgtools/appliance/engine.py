"""`model.Engine` over libguestfs: launched on first use, everything on throw-away overlays."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from functools import partial

from imgtools.appliance.launch import Appliance
from imgtools.appliance.library import CallError, Library
from imgtools.appliance.storage import Builder
from imgtools.appliance.survey import SCRIPT, Survey, parse_survey
from imgtools.appliance.translate import first_line
from imgtools.appliance.tree import ApplianceTree
from imgtools.appliance.unlock import unlock
from imgtools.config import Config
from imgtools.errors import GuestOperationError
from imgtools.model import (
    Disk,
    EngineName,
    FileTree,
    KeySpec,
    Notice,
    Storage,
    unique_vg_names,
)

_MAX_LUKS_ROUNDS = 3
# Kinds of UFS that the kernel cannot tell apart by itself (mount_options ufstype=).
_UFS_TYPES = ("ufs2", "44bsd", "old", "sun", "sunx86")


class ApplianceEngine:
    """Reads a set of disks through the libguestfs appliance.  Not thread-safe."""

    def __init__(
        self, disks: Sequence[Disk], keys: Sequence[KeySpec] = (), config: Config | None = None
    ) -> None:
        self._disks = tuple(disks)
        self._keys = tuple(keys)
        self._config = config or Config()
        self._appliance: Appliance | None = None
        self._storage: Storage | None = None
        self._trees: dict[str, ApplianceTree] = {}
        self._notices: list[Notice] = []
        self._own_names: dict[str, str] = {}
        self._mapped: dict[str, str] = {}
        self._closed = False

    @property
    def name(self) -> EngineName:
        """``appliance``."""
        return "appliance"

    @property
    def appliance(self) -> Appliance:
        """The running appliance; launched now if it is not yet."""
        if self._closed:
            raise ValueError("the engine is closed")
        if self._appliance is None:
            self._appliance = Appliance(self._disks, self._config)
            self._notices += self._appliance.notices
        return self._appliance

    def storage(self) -> Storage:
        """Everything on the disks (cached; opens LUKS volumes whose keys were given)."""
        if self._storage is None:
            self._storage = self._read_storage()
        return self._storage

    def mount(self, device: str) -> FileTree:
        """The file tree of a mountable, by the name `storage` gave it.

        Mounted read-only on the overlay, so that a journal is replayed there and nowhere else.
        Raises GuestOperationError if it cannot be mounted.
        """
        if device not in self._trees:
            self.storage()  # opens what the device may lie on
            self._trees[device] = self._mount(device)
        return self._trees[device]

    def close(self) -> None:
        """End the appliance and wait for it.  Idempotent."""
        self._closed = True
        if self._appliance is not None:
            self._appliance.close()

    # -- storage ----------------------------------------------------------------------------------

    def _read_storage(self) -> Storage:
        survey = self._survey()
        changed = self._rename_groups(survey)
        for _ in range(_MAX_LUKS_ROUNDS):
            if changed:
                survey = self._survey()
            changed = unlock(self.appliance, survey, self._keys, self._mapped, self._notices)
            if not changed:
                break
            self._activate()
            survey = self._survey()
            changed = self._rename_groups(survey)
        builder = Builder(survey, self._own_names, self._mapped, bool(self._keys))
        builder.warnings += self._notices
        return builder.build()

    def _survey(self) -> Survey:
        return parse_survey(self.appliance.shell(SCRIPT), len(self._disks))

    def _rename_groups(self, survey: Survey) -> bool:
        """Give volume groups of one name unique names, in our overlay; True if any was."""
        rows = {row["vg_uuid"]: row["vg_name"] for row in survey.lvm("pvs", "pv") if row["vg_uuid"]}
        groups = [(name, uuid) for uuid, name in rows.items()]
        renamed = False
        for (own, uuid), name in zip(groups, unique_vg_names(groups), strict=True):
            if own != name and re.fullmatch(r"[\w+.-]+", name):
                self._lvm(f"vgrename {shlex.quote(uuid)} {shlex.quote(name)}", own)
                self._own_names[name] = own
                renamed = True
        if renamed:
            self._activate()
        return renamed

    def _activate(self) -> None:
        self._lvm("pvscan --cache", "")
        self._lvm("vgchange -ay --sysinit", "")

    def _lvm(self, arguments: str, group: str) -> None:
        script = f"lvm {arguments} >/dev/null 2>/tmp/imgtools.err || cat /tmp/imgtools.err; exit 0"
        complaint = self.appliance.shell(script, what="work on the volumes")
        if complaint.strip():
            line = first_line(complaint.decode(errors="replace"))
            where = f"volume group {group}" if group else "LVM"
            self._notices.append(Notice(code="volume.lvm", message=f"{where}: {line}"))

    # -- mounting ---------------------------------------------------------------------------------

    def _mount(self, device: str) -> ApplianceTree:
        mountable = device.encode("utf-8", errors="surrogateescape")
        mountpoint = b"/imgtools%d" % len(self._trees)
        appliance = self.appliance
        appliance.call(lambda lib: lib.status("mkmountpoint", mountpoint))
        first: CallError | None = None
        for options in self._options(device):
            try:
                mount = partial(_mount_options, options=options, at=(mountable, mountpoint))
                appliance.call(mount, what=f"mounting {device}")
            except CallError as error:
                first = first or error
            else:
                return ApplianceTree(appliance, mountpoint)
        assert first is not None
        appliance.call(lambda lib: lib.status("rmmountpoint", mountpoint))
        raise GuestOperationError(f"{device}: cannot be mounted: {first_line(first.message)}")

    def _options(self, device: str) -> list[bytes]:
        kind = next((fs.type for fs in self.storage().filesystems if fs.device == device), "")
        if kind == "ufs":
            return [b"ro,ufstype=" + name.encode() for name in _UFS_TYPES]
        if kind == "xfs":
            # Two clones carry one UUID, and the kernel mounts only the first without nouuid.
            return [b"ro", b"ro,nouuid"]
        return [b"ro"]


def _mount_options(lib: Library, options: bytes, at: tuple[bytes, bytes]) -> int:
    return lib.status("mount_options", options, *at)
