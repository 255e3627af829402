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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from imgtools.appliance import preflight
from imgtools.appliance.instant import advice, choose
from imgtools.appliance.instant.hypervisor import MARK
from imgtools.appliance.instant.short import short_name
from imgtools.appliance.instant.template import Template, note_failure, note_success
from imgtools.appliance.library import (
    EVENT_APPLIANCE,
    EVENT_LIBRARY,
    EVENT_WARNING,
    CallError,
    Library,
    open_handle,
)
from imgtools.appliance.overlay import Overlay, make_overlay
from imgtools.appliance.probe import kvm_works
from imgtools.appliance.translate import died_error, first_line, launch_error
from imgtools.appliance.worker import Worker
from imgtools.config import Config
from imgtools.errors import (
    ApplianceError,
    ImgtoolsError,
    NoTemplateError,
    RefusedError,
    UsageError,
)
from imgtools.model.disks import Disk
from imgtools.model.engine import PLAIN, Machine
from imgtools.model.notices import Notice
from imgtools.process import signals_later

T = TypeVar("T")

CALL_TIMEOUT = 600.0
SERVING_END = 60.0
UNPACK_TIMEOUT = 24 * 3600.0
# A resumed guest tells each step that it takes; a damaged one mostly says nothing.
INSTANT_PATIENCE = 10.0
_MAX_LOG = 512  # messages
NOT_RESUMED = f"{MARK}not resumed: ".encode()

Way = Literal["best", "stock"] | Template
"""How to launch: ``best`` resumes a template where that is valid, ``stock`` boots, a template is
resumed or it is an error."""


class _InstantError(Exception):
    """A template could not be resumed: the launch must be repeated as a stock one."""


class Appliance:
    """A launched appliance.  ``call`` makes libguestfs calls; ``close`` waits for qemu's end.

    ``template`` is the one that was resumed, None after a boot, with ``reason`` saying why.
    ``overlays`` are paths for the overlays of the disks, which are then kept, complete after a
    `shutdown`; without them they are thrown away.  ``machine`` is what it is to have.
    """

    def __init__(
        self,
        disks: Sequence[Disk],
        config: Config,
        way: Way = "best",
        *,
        overlays: Sequence[Path] | None = None,
        machine: Machine = PLAIN,
    ) -> None:
        self.notices: list[Notice] = []
        self.log: deque[bytes] = deque(maxlen=_MAX_LOG)
        self.folder = Path()
        self.backend = ""
        self.accelerator = ""
        self.template: Template | None = None
        self.reason = ""
        self._config = config
        self._machine = machine
        self._overlays: Sequence[Path | None] = overlays or [None] * len(disks)
        self._doom: ImgtoolsError | None = None
        self._qemu = 0
        self._closed = False
        try:
            try:
                self._up(disks, way)
            except _InstantError as error:
                self._repeat(disks, str(error))
        except BaseException:
            self.close()
            raise

    def _up(self, disks: Sequence[Disk], way: Way) -> None:
        self._g = open_handle()
        self._library = Library(self._g)
        self._worker = Worker(self._kill)
        self.call(Library.silence)
        self._configure(way)
        self._start(disks, must=isinstance(way, Template))
        if self.template is not None:
            note_success(self.template)

    def _repeat(self, disks: Sequence[Disk], reason: str) -> None:
        """The template failed: launch as libguestfs does, and blame the template if that works."""
        failed, self.template = self.template, None
        assert failed is not None
        self._down()
        self.log.clear()
        self._up(disks, "stock")
        self.reason = reason
        aside = note_failure(failed, reason)
        what = "was set aside (imgtools appliance build makes a new one)" if aside else "failed"
        message = f"the instant appliance {what}, a stock one was started instead: {reason}"
        self.notices.append(Notice(code="appliance.instant-failed", message=message))

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
            if self._doom is not None:
                raise self._doom from error
            if self._is_dead():
                raise died_error(error.message, list(self.log)) from error
            raise

    def doom(self, error: ImgtoolsError) -> None:
        """Kill the appliance; the call that waits for it, or the next one, raises ``error``."""
        self._doom = error
        self._kill()

    def shutdown(self) -> None:
        """Unmount everything and end qemu, so that the overlays are complete.

        Raises ApplianceError (or the doom) if what was written may not have arrived.
        """
        try:
            self.call(lambda lib: lib.status("umount_all"), what="unmounting")
            self.call(lambda lib: lib.status("sync"), what="writing")
            self.call(lambda lib: lib.status("shutdown"), what="its end", timeout=CALL_TIMEOUT)
        except CallError as error:
            raise ApplianceError(
                f"the appliance did not write everything: {first_line(error.message)}"
            ) from error
        self._qemu = 0
        if self._doom is not None:
            raise self._doom

    def shell(
        self, script: str, *, what: str = "a look at the disks", timeout: float = CALL_TIMEOUT
    ) -> bytes:
        """Run a shell script inside the appliance and return what it printed (under 4 MiB)."""
        from imgtools.appliance.library import string_list

        arguments = string_list([os.fsencode(script)])
        return self.call(
            lambda lib: lib.text("debug", b"sh", arguments), what=what, timeout=timeout
        )

    def unpack(self, archive: int, folder: bytes) -> None:
        """Unpack a tar stream, read from a descriptor, in ``folder`` (an ASCII path)."""
        name = f"/dev/fd/{archive}"

        def act(_: Library) -> None:
            try:
                self._g.tar_in(name, folder.decode(), xattrs=True, acls=True, selinux=True)
            except (RuntimeError, UnicodeError) as error:
                raise CallError(str(error), 0) from error

        self.call(act, what="unpacking", timeout=UNPACK_TIMEOUT)

    @contextlib.contextmanager
    def beside(
        self, function: Callable[[Library], object], end: Callable[[], None]
    ) -> Iterator[None]:
        """Run ``function(library)``, which serves until ``end`` is called, beside the block.

        Raises what `call` does.  No other call may be made within the block.
        """
        job = self._worker.start(lambda: function(self._library))
        try:
            yield
        finally:
            with signals_later():
                end()
                with contextlib.suppress(CallError):  # it served well, or the block has failed
                    self._worker.finish(job, timeout=SERVING_END, what="serving its files")

    def close(self) -> None:
        """End qemu, wait for it, and remove every trace.  Idempotent."""
        if self._closed:
            return
        self._closed = True
        if hasattr(self, "_worker"):  # else there is no binding
            self._down()

    def _down(self) -> None:
        if not self._worker.stuck:
            with contextlib.suppress(ApplianceError, RuntimeError, CallError):
                self._worker.call(self._g.close, timeout=60, what="its end")
        self._worker.stop()
        self._qemu = 0
        if self.folder != Path():
            self._cleanup()
            self.folder = Path()

    # -- the way up -------------------------------------------------------------------------------

    def _configure(self, way: Way) -> None:
        g, config = self._g, self._config
        # The user's own variables win; libguestfs has read them into the handle already.
        if not os.environ.get("LIBGUESTFS_BACKEND"):
            g.set_backend("direct")
        self.backend = g.get_backend()
        preflight.check_qemu(g.get_hv())
        if not os.environ.get("LIBGUESTFS_BACKEND_SETTINGS") and self.backend == "direct":
            answer, notices = kvm_works(g.get_hv(), config)
            self.notices += [notice for notice in notices if notice not in self.notices]
            if not answer.works:
                g.set_backend_settings(["force_tcg"])
        self.accelerator = "TCG" if "force_tcg" in g.get_backend_settings() else "KVM"
        if config.memsize:
            g.set_memsize(config.memsize)
        if self._machine.network:
            g.set_network(True)
        if self._machine.processors > 1:
            g.set_smp(self._machine.processors)
        # Overlays are thrown away, or unmounted and closed by `shutdown`, which reports errors.
        g.set_autosync(False)
        self._choose(way)
        if not (g.get_verbose() or g.get_trace()):
            events = EVENT_APPLIANCE | EVENT_LIBRARY | EVENT_WARNING
            self._library.on_event(self._hear, events)

    def _choose(self, way: Way) -> None:
        """Point libguestfs at a template, or make sure that a stock launch can work."""
        self.template = way if isinstance(way, Template) else None
        if way == "best" and self.backend == "direct":
            try:
                self.template = choose(self._g, self._config, self.accelerator)
            except NoTemplateError as error:
                self.reason = error.message
                self.notices += advice(self._config)
            except RefusedError as error:
                self.reason = error.message
                message = f"{error.message} -- {error.hint}"
                self.notices.append(Notice(code="appliance.instant-refused", message=message))
        if self.template is None:
            preflight.check_host(self._g.get_hv(), self._g.get_path())
            return
        self._g.set_path(str(self.template.folder))

    def _hear(self, _event: int, message: bytes) -> None:
        self.log.append(message)
        self._worker.touch()
        if NOT_RESUMED in message:  # an ordinary boot, which is silent for long
            self._worker.patience = None

    def _start(self, disks: Sequence[Disk], *, must: bool) -> None:
        self.folder = self._make_folder()
        overlays = [
            make_overlay(disk, index, self.folder, path)
            for index, (disk, path) in enumerate(zip(disks, self._overlays, strict=True))
        ]
        try:
            for disk, overlay in zip(disks, overlays, strict=True):
                self._add(disk, overlay)
            self._launch()
        except (RuntimeError, ApplianceError) as error:
            failure = error
            if isinstance(error, RuntimeError):
                failure = launch_error(str(error), list(self.log))
            if self.template is not None and not must:
                raise _InstantError(failure.args[0]) from error
            raise failure from error
        if self.template is not None and any(NOT_RESUMED in message for message in self.log):
            self.template, self.reason = None, not_resumed_reason(self.log)

    def _launch(self) -> None:
        heard = not (self._g.get_verbose() or self._g.get_trace())
        if self.template is not None and heard:
            self._worker.patience = INSTANT_PATIENCE
        with contextlib.ExitStack() as stack:
            if self.template is not None:
                self._g.set_hv(str(stack.enter_context(short_name(self.template.hypervisor))))
            stack.callback(setattr, self._worker, "patience", None)
            self._worker.call(self._g.launch, timeout=self._config.timeout, what="its start")
        with contextlib.suppress(RuntimeError):  # only the direct backend knows
            self._qemu = self._g.get_pid()

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


def not_resumed_reason(log: Iterable[bytes]) -> str:
    """Why the template's program started the real qemu instead, from what it said."""
    text = b"".join(log).partition(NOT_RESUMED)[2]
    return text.partition(b"\n")[0].decode(errors="replace").strip()[:200]


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
