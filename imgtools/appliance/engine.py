"""`model.Engine` over libguestfs: launched on first use, everything on throw-away overlays."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from imgtools.appliance import chroot, renaming, swap
from imgtools.appliance.foreign import inspect_foreign
from imgtools.appliance.launch import Appliance
from imgtools.appliance.mounting import READ_ONLY, mount, separate_clones
from imgtools.appliance.sharing import exported
from imgtools.appliance.storage import Builder
from imgtools.appliance.survey import (
    ACTIVATE,
    SCRIPT,
    Survey,
    details_script,
    groups_in_disk_order,
    kernel_path,
    parse_survey,
    with_details,
)
from imgtools.appliance.translate import first_line
from imgtools.appliance.tree import ApplianceTree
from imgtools.appliance.unlock import unlock
from imgtools.appliance.writing import ApplianceWriter
from imgtools.config import Config
from imgtools.errors import GuestOperationError
from imgtools.model.disks import Disk, KeySpec
from imgtools.model.engine import PLAIN, EngineName, Machine, Ran
from imgtools.model.files import FileTree
from imgtools.model.foreign import ForeignGuest
from imgtools.model.notices import Notice
from imgtools.model.storage import Storage, unique_vg_names

_MAX_ROUNDS = 4  # LVM on LUKS on LVM, and one to spare


class ApplianceEngine:
    """Reads a set of disks through the libguestfs appliance.  Not thread-safe.

    With ``overlays`` (see `Appliance`) it writes as well: after `begin_writing`, `mount_writable`
    gives trees whose changes are complete in the overlays after `finish_writing`.
    """

    def __init__(
        self,
        disks: Sequence[Disk],
        keys: Sequence[KeySpec] = (),
        config: Config | None = None,
        *,
        overlays: Sequence[Path] | None = None,
        machine: Machine = PLAIN,
    ) -> None:
        self._disks = tuple(disks)
        self._keys = tuple(keys)
        self._config = config or Config()
        self._machine = machine
        self._appliance: Appliance | None = None
        self._storage: Storage | None = None
        self._survey: Survey | None = None
        self._trees: dict[str, ApplianceTree] = {}
        self._notices: list[Notice] = []
        self._own_names: dict[str, str] = {}
        self._mapped: dict[str, str] = {}
        self._closed = False
        self._mounts = 0
        self._overlays = overlays
        self._writable: dict[str, ApplianceWriter] = {}
        self.mount_options: Mapping[bytes, str] = {}
        """More options for what is mounted to be changed, by its mountpoint in the guest."""

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
            self._appliance = Appliance(
                self._disks, self._config, overlays=self._overlays, machine=self._machine
            )
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
            mountpoint = b"/imgtools%d" % self._mounts
            self._mounts += 1
            storage = self.storage()  # opens what the device may lie on
            assert self._survey is not None
            mount(self.appliance, storage, self._survey, device, mountpoint)
            self._trees[device] = ApplianceTree(self.appliance, mountpoint)
        return self._trees[device]

    # -- writing ----------------------------------------------------------------------------------

    def begin_writing(self) -> None:
        """Unmount what was mounted for reading: a filesystem is mounted in one way at a time."""
        if self._trees:
            self.unmount()

    def unmount(self) -> None:
        """Unmount everything; trees that were given out are of no use any more."""
        self.appliance.call(lambda lib: lib.status("umount_all"), what="unmounting")
        self._trees.clear()
        self._writable.clear()

    def set_uuid(self, device: str, kind: str, uuid: str) -> None:
        """Give what is on ``device`` another UUID (see `renaming.set_uuid`), nothing mounted."""
        self.storage()
        assert self._survey is not None
        renaming.set_uuid(self.appliance, device, kernel_path(self._survey, device), kind, uuid)

    def swap_is_clear(self, device: str) -> bool:
        """True if the swap space on ``device`` has no content."""
        self.storage()
        assert self._survey is not None
        return swap.is_clear(self.appliance, kernel_path(self._survey, device))

    def clear_swap(self, device: str) -> None:
        """Write zeros over the content of the swap space on ``device``."""
        self.storage()
        assert self._survey is not None
        swap.clear(self.appliance, kernel_path(self._survey, device), device)

    def renew_lvm(self) -> dict[str, str]:
        """Give LVM's PVs and VGs random ids, nothing mounted; old ids to new, without dashes."""
        volumes = {one.name for one in self.storage().lvs}
        assert self._survey is not None
        above = {path: name for path, name in self._mapped.items() if path in volumes}
        opened = [name.removeprefix("/dev/mapper/") for name in above.values()]
        changed = renaming.renew_lvm(self.appliance, opened)
        if above:
            self._mapped = {k: v for k, v in self._mapped.items() if k not in above}
            unlock(self.appliance, self._survey, self._keys, self._mapped, self._notices)
        return changed

    def mount_writable(self, device: str, shown_at: bytes = b"/") -> ApplianceWriter:
        """The tree of a mountable, to be changed.  Mounted on the overlay, once.

        ``shown_at`` is where the guest has it, for messages.
        Raises GuestOperationError if it cannot be mounted or its filesystem cannot be written.
        """
        if device not in self._writable:
            mountpoint = b"/imgtools%d" % self._mounts
            self._mounts += 1
            storage = self.storage()
            assert self._survey is not None
            mount(
                *(self.appliance, storage, self._survey, device, mountpoint),
                writable=True,
                more=self.mount_options.get(shown_at, ""),
            )
            self._writable[device] = ApplianceWriter(self.appliance, mountpoint, shown_at)
        return self._writable[device]

    @contextlib.contextmanager
    def share(self, mounts: Sequence[tuple[bytes, str]], folder: Path) -> Iterator[None]:
        """All of the guest on a folder of this host, to be changed, while the block runs.

        ``mounts`` are paths in the guest, the root first, and mountables.  Everything is unmounted
        before, and after it if all went well.  Raises what `sharing.exported` does.
        """
        self.unmount()
        storage = self.storage()
        assert self._survey is not None
        kinds = {one.device: one.type for one in storage.filesystems}
        for point, device in mounts:
            mount(
                *(self.appliance, storage, self._survey, device, point),
                writable=kinds.get(device) not in READ_ONLY,
                within=True,
                more=self.mount_options.get(point, ""),
            )
        with exported(self.appliance, folder):
            yield
        self.unmount()

    def run(
        self,
        mounts: Sequence[tuple[bytes, str]],
        words: Sequence[bytes],
        *,
        environment: Mapping[str, str],
        personality: str = "",
    ) -> Ran:
        """Run a program of the guest; ``mounts`` are paths in the guest and mountables.

        See `imgtools.appliance.chroot.run`.
        """
        where = [(point, self.mount_writable(one, point).mountpoint) for point, one in mounts]
        return chroot.run(
            self.appliance, where, words, environment=environment, personality=personality
        )

    @property
    def network(self) -> bool:
        """Whether the appliance has a network card."""
        return self._machine.network

    def resolver(self) -> bytes:
        """The appliance's own resolv.conf(5)."""
        return self.appliance.shell("cat /etc/resolv.conf; exit 0", what="a look at its network")

    def finish_writing(self) -> None:
        """Unmount, and end the appliance, so that the overlays are complete.

        Raises ApplianceError if what was written may not have arrived.
        """
        self.appliance.shutdown()
        self.close()

    @property
    def notices(self) -> list[Notice]:
        """What was noticed so far, also after `storage` was made."""
        return list(self._notices)

    def inspect_foreign(self) -> list[ForeignGuest]:
        """Guests that are not Linux, by libguestfs's own inspection.

        Call it before `mount`: libguestfs's inspection unmounts everything.
        """
        storage = self.storage()
        assert self._survey is not None
        # One clone that cannot be mounted would end libguestfs's inspection of everything.
        separate_clones(self.appliance, storage, self._survey)
        self._trees.clear()
        return inspect_foreign(self.appliance, self._notices)

    def close(self) -> None:
        """End the appliance and wait for it.  Idempotent."""
        self._closed = True
        if self._appliance is not None:
            self._appliance.close()

    # -- storage ----------------------------------------------------------------------------------

    def _read_storage(self) -> Storage:
        survey = self._look("")
        for _ in range(_MAX_ROUNDS):
            renamed = self._rename_groups(survey)
            opened = unlock(self.appliance, survey, self._keys, self._mapped, self._notices)
            if not renamed and not opened:
                break
            survey = self._look(ACTIVATE)
        self._survey = survey
        self._note_lvm(survey)
        builder = Builder(survey, self._own_names, self._mapped, bool(self._keys))
        builder.warnings += self._notices
        return builder.build()

    def _look(self, first: str) -> Survey:
        shell = self.appliance.shell
        survey = parse_survey(shell(first + SCRIPT))
        return with_details(survey, shell(details_script(survey)))

    def _rename_groups(self, survey: Survey) -> bool:
        """Give volume groups of one name unique names, in our overlay; True if any was."""
        groups = groups_in_disk_order(survey)
        renamed = False
        for (own, uuid), name in zip(groups, unique_vg_names(groups), strict=True):
            if own != name and re.fullmatch(r"[\w+.-]+", name):
                self._rename(own, uuid, name)
                renamed = True
        return renamed

    def _rename(self, own: str, uuid: str, name: str) -> None:
        if self._overlays is not None:
            raise GuestOperationError(
                f"two volume groups are called {own}: the disks of two guests?",
                hint="change one guest at a time",
            )
        script = f"lvm vgrename {shlex.quote(uuid)} {shlex.quote(name)} 2>&1 >/dev/null; exit 0"
        complaint = self.appliance.shell(script).decode(errors="replace").strip()
        self._own_names[name] = own
        self._notices.append(
            Notice(
                code="volume.renamed",
                message=f"two volume groups are called {own}: the later one is shown as {name}",
            )
        )
        if complaint and "used by VGs" not in complaint:
            message = f"volume group {own}: {first_line(complaint)}"
            self._notices.append(Notice(code="volume.lvm", message=message))

    def _note_lvm(self, survey: Survey) -> None:
        for line in survey.section("lvmerr"):
            text = line.strip().removeprefix("WARNING: ")
            if text and "reading without locks" not in text.lower():
                self._notices.append(Notice(code="volume.lvm", message=f"LVM: {text[:200]}"))
