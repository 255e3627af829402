"""Programs of this host that are run on the guest's files."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import GuestOperationError, MissingToolError, UsageError
from imgtools.guest.steps.base import Always, Done
from imgtools.guest.writing import GuestFiles
from imgtools.process import run_in_folder

FUSE = Path("/dev/fuse")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOnHost(Always):
    """Run ``program`` of this host in ``folder``, where the guest's files are while it runs.

    Without a folder in a temporary one.  Its output goes to our stderr.
    """

    program: Path
    folder: Path | None = None

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Run it.  Raises GuestOperationError unless it ends with exit status 0."""
        with _place(self.folder) as folder, guest.shared(folder):
            status = run_in_folder(folder, [str(self.program)])
        if status != 0:
            raise GuestOperationError(f"{self.program}: {_ended(status)}")
        return [Done(verb="ran", path=os.fsencode(self.program))]


def find_program(name: str) -> Path:
    """The program that a user names: a path, or a name on PATH.  Raises UsageError."""
    if not name:
        raise UsageError("an empty name is no script")
    found = shutil.which(name) if os.sep not in name else name
    if found is None:
        hint = f"./{name} for the one in this folder" if Path(name).is_file() else None
        raise UsageError(f"{name}: no such program on PATH", hint=hint)
    path = Path(os.path.abspath(found))  # noqa: PTH100 (a link is started by its own name)
    if not path.is_file():
        raise UsageError(f"{name}: no such file")
    if not os.access(path, os.X_OK):
        raise UsageError(f"{name}: is not executable", hint=f"chmod +x {name}")
    return path


def find_folder(name: str) -> Path:
    """The folder on which a user wants the guest mounted.  Raises UsageError."""
    path = Path(name).absolute()
    try:
        if any(path.iterdir()):
            raise UsageError(f"{name}: is not empty")
    except OSError as error:
        raise UsageError(f"{name}: {(error.strerror or str(error)).lower()}") from error
    return path


def check_fuse() -> None:
    """Raises MissingToolError if no folder of this host can be a guest's."""
    try:
        os.close(os.open(FUSE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise MissingToolError(
            f"{FUSE}: {(error.strerror or str(error)).lower()}; the guest's files cannot be "
            "mounted on this host",
            hint="modprobe fuse; in a container, start it with --device /dev/fuse",
        ) from error
    if not (shutil.which("fusermount3") or shutil.which("fusermount")):
        raise MissingToolError(
            "the program fusermount3 is not installed",
            hint="apt-get install --no-install-recommends fuse3",
        )


@contextlib.contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    """A folder to mount on.  What is in it is never removed: it might be the guest."""
    if folder is not None:
        yield folder
        return
    made = Path(tempfile.mkdtemp(prefix="imgtools-guest-"))
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            made.rmdir()


def _ended(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
