"""One running appliance: made, killed and cleaned up, whatever happens in between.

Every disk is added as our own overlay (see ``overlay``) in a private folder, which also holds
libguestfs's temporary files; it goes away on close, on failure, on a signal that becomes an
exception, and at the end of the process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from imgtools.appliance import preflight
from imgtools.appliance.library import (
    EVENT_APPLIANCE,
    EVENT_LIBRARY,
    EVENT_WARNING,
    CallError,
    Library,
    import_guestfs,
)
from imgtools.appliance.overlay import Overlay, make_overlay
from imgtools.appliance.probe import kvm_works
from imgtools.appliance.translate import died_error, launch_error
from imgtools.appliance.worker import Worker
from imgtools.config import Config
from imgtools.errors import ApplianceError, UsageError
from imgtools.model import Disk, Notice

T = TypeVar("T")

CALL_TIMEOUT = 600.0
_MAX_LOG = 512  # messages


class Appliance:
    """A launched appliance.  ``call`` makes libguestfs calls; ``close`` waits for qemu's end."""

    def __init__(self, disks: Sequence[Disk], config: Config) -> None:
        self.notices: list[Notice] = []
        self.log: deque[bytes] = deque(maxlen=_MAX_LOG)
        self.folder = Path()
        self.backend = ""
        self.accelerator = ""
        self._config = config
        self._qemu = 0
        self._closed = False
        self._g = import_guestfs().GuestFS(python_return_dict=True)
        self._library = Library(self._g)
        self._worker = Worker(self._kill)
        try:
            self.call(Library.silence)
            self._configure()
            self._start(disks)
        except BaseException:
            self.close()
            raise

    # -- calls ----------------------------------------------------------------------------------

    def call(
        self,
        function: Callable[[Library], T],
        *,
        what: str = "a call",
        timeout: float = CALL_TIMEOUT,
    ) -> T:
        """Run ``function(library)``.

        Raises CallError for an error inside the appliance, ApplianceError if it died or hung.
        """
        if self._closed:
            raise ApplianceError("the appliance is closed")
        try:
            return self._worker.call(lambda: function(self._library), timeout=timeout, what=what)
        except CallError as error:
            if self._is_dead():
                raise died_error(error.message, list(self.log)) from error
            raise

    def shell(self, script: str, *, what: str = "a look at the disks") -> bytes:
        """Run a shell script inside the appliance and return what it printed (under 4 MiB)."""
        from imgtools.appliance.library import string_list

        arguments = string_list([os.fsencode(script)])
        return self.call(lambda lib: lib.text("debug", b"sh", arguments), what=what)

    def close(self) -> None:
        """End qemu, wait for it, and remove every trace.  Idempotent."""
        if self._closed:
            return
        self._closed = True
        if not self._worker.stuck:
            with contextlib.suppress(ApplianceError, RuntimeError, CallError):
                self._worker.call(self._g.close, timeout=60, what="its end")
        self._worker.stop()
        if self.folder != Path():
            self._cleanup()

    # -- the way up -------------------------------------------------------------------------------

    def _configure(self) -> None:
        g, config = self._g, self._config
        # The user's own variables win; libguestfs has read them into the handle already.
        if not os.environ.get("LIBGUESTFS_BACKEND"):
            g.set_backend("direct")
        self.backend = g.get_backend()
        preflight.check_host(g.get_hv(), g.get_path())
        if not os.environ.get("LIBGUESTFS_BACKEND_SETTINGS") and self.backend == "direct":
            answer, notices = kvm_works(g.get_hv(), config)
            self.notices += notices
            if not answer.works:
                g.set_backend_settings(["force_tcg"])
        self.accelerator = "TCG" if "force_tcg" in g.get_backend_settings() else "KVM"
        if config.memsize:
            g.set_memsize(config.memsize)
        # What is written goes to throw-away overlays: nothing to flush at the end.
        g.set_autosync(False)
        if not (g.get_verbose() or g.get_trace()):
            events = EVENT_APPLIANCE | EVENT_LIBRARY | EVENT_WARNING
            self._library.on_event(lambda _event, message: self.log.append(message), events)

    def _start(self, disks: Sequence[Disk]) -> None:
        self.folder = self._make_folder()
        overlays = [make_overlay(disk, index, self.folder) for index, disk in enumerate(disks)]
        try:
            for disk, overlay in zip(disks, overlays, strict=True):
                self._add(disk, overlay)
            self._worker.call(self._g.launch, timeout=self._config.timeout, what="its start")
            with contextlib.suppress(RuntimeError):  # only the direct backend knows
                self._qemu = self._g.get_pid()
        except RuntimeError as error:
            raise launch_error(str(error), list(self.log)) from error

    def _make_folder(self) -> Path:
        where = preflight.places().temporary
        try:
            folder = Path(tempfile.mkdtemp(prefix="imgtools-", dir=where))
        except OSError as error:
            raise preflight.folder_error(where, error) from error
        self._cleanup = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._g.set_tmpdir(str(folder))
        return folder

    def _add(self, disk: Disk, overlay: Overlay) -> None:
        options: dict[str, Any] = {"format": "qcow2", "cachemode": "unsafe"}
        if disk.request.block_size != 512:
            options["blocksize"] = disk.request.block_size
        try:
            self._g.config("-blockdev", overlay.blockdev)
            self._g.add_drive_opts(str(overlay.path), **options)
        except UnicodeEncodeError as error:
            raise UsageError(f"{self.folder}: the name is not UTF-8", hint="set TMPDIR") from error

    # -- the way down -----------------------------------------------------------------------------

    def _is_dead(self) -> bool:
        try:
            return not self._worker.call(self._g.is_ready, timeout=10, what="its state")
        except RuntimeError:
            return True

    def _kill(self) -> None:
        """Kill qemu, and a supermin that is building; called while a call is being waited for."""
        for pid in [self._qemu] if self._qemu else _children_with(os.fsencode(self.folder)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _children_with(folder: bytes) -> list[int]:
    """Our child processes that name ``folder`` in their arguments (qemu), or are supermin."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The second field, the name, may hold spaces and brackets: count from its end.
            parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            if parent != os.getpid():
                continue
            arguments = (entry / "cmdline").read_bytes()
            program = arguments.split(b"\0", 1)[0].rpartition(b"/")[2]
            if program == b"supermin" or (folder != b"." and folder in arguments):
                found.append(int(entry.name))
    return found
