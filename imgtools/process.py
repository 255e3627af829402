"""The only importer of ``subprocess``: run a program with a timeout and bounded output.

Charter: argument lists only, never a shell; a child gets the C locale, no stdin unless given,
its own process group (killed as a whole on timeout or interrupt), and its output is capped, so
that a hostile image cannot make ``qemu-img`` eat our memory or our day.  Secrets are passed on
stdin or by file descriptor, never in argv; `Secret` text in argv is a programming error.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from imgtools.errors import MissingToolError, ToolError, ToolTimeoutError

DEFAULT_TIMEOUT = 60.0
MAX_OUTPUT = 16 << 20

# Which Debian package brings a tool, for the hint of a missing one.
PACKAGE_OF = {
    "qemu-img": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "virsh": "libvirt-clients",
    "supermin": "supermin",
}


_inherited: ContextVar[tuple[int, ...]] = ContextVar("inherited", default=())

Child = subprocess.Popen[bytes]
"""A running program, for those who may not import subprocess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a program left: its exit status and what it printed (capped)."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: str

    def first_error_line(self) -> str:
        """The first non-empty line of stderr, of which later ones follow; as `last_error_line`."""
        return self._error_line(0)

    def last_error_line(self) -> str:
        """The last non-empty line of stderr, without the program's own prefix."""
        return self._error_line(-1)

    def _error_line(self, index: int) -> str:
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        if not lines:
            return f"exit status {self.returncode}"
        return lines[index].removeprefix(f"{Path(self.argv[0]).name}: ")


def find_tool(name: str) -> str:
    """Return the full path of ``name`` on PATH.

    Raises MissingToolError with the apt line that installs it.
    """
    found = shutil.which(name)
    if found is None:
        package = PACKAGE_OF.get(name, name)
        raise MissingToolError(
            f"the program {name} is not installed",
            hint=f"apt-get install --no-install-recommends {package}",
        )
    return found


def run(
    argv: Sequence[str],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    check: bool = True,
    max_output: int = MAX_OUTPUT,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run ``argv`` and return what it printed.

    ``timeout`` in seconds; output beyond ``max_output`` bytes is cut.  ``env`` is added to the
    environment.  Raises MissingToolError, ToolTimeoutError, and ToolError when ``check`` is
    set and the exit status is not 0.
    """
    program = find_tool(argv[0])
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _spawned(
            [program, *argv[1:]], stdout=out, stderr=err, stdin=stdin, env=env, pass_fds=pass_fds
        ) as child:
            try:
                child.communicate(stdin, timeout=timeout)
            except subprocess.TimeoutExpired:
                _kill_group(child)
                raise ToolTimeoutError(
                    f"{argv[0]} did not finish within {timeout:g} s and was stopped",
                    hint="the image may be damaged or hostile, or its storage hangs",
                ) from None
        completed = Completed(
            argv=tuple(argv),
            returncode=child.returncode,
            stdout=_read_capped(out, max_output),
            stderr=_read_capped(err, 1 << 20).decode(errors="replace"),
        )
    if check and completed.returncode != 0:
        raise ToolError(f"{argv[0]}: {completed.last_error_line()}")
    return completed


@contextlib.contextmanager
def inheriting(fds: Sequence[int]) -> Iterator[None]:
    """Give these descriptors to every program that the block starts.

    The locks that they carry are then held until the program has ended, also when we are killed
    before: nobody else uses an image that a qemu-img without its imgtools still writes.
    """
    token = _inherited.set((*_inherited.get(), *fds))
    try:
        yield
    finally:
        _inherited.reset(token)


@contextlib.contextmanager
def running(argv: Sequence[str], *, pass_fds: Sequence[int] = ()) -> Iterator[Child]:
    """Run ``argv`` beside the block, which reads its stdout; it is killed when the block ends.

    Its stderr goes to the same pipe.  Raises MissingToolError.
    """
    program = find_tool(argv[0])
    with _spawned(
        [program, *argv[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds,
    ) as child:
        try:
            yield child
        finally:
            _kill_group(child)
            if child.stdout is not None:
                child.stdout.close()


@contextlib.contextmanager
def streaming(argv: Sequence[str], *, pass_fds: Sequence[int] = ()) -> Iterator[IO[bytes]]:
    """Run ``argv`` beside the block, which reads its stdout to the end.

    Raises MissingToolError, and ToolError after the block when the program failed.
    """
    program = find_tool(argv[0])
    with (
        tempfile.TemporaryFile() as err,
        _spawned(
            [program, *argv[1:]], stdout=subprocess.PIPE, stderr=err, pass_fds=pass_fds
        ) as child,
    ):
        assert child.stdout is not None
        try:
            yield child.stdout
        finally:
            child.stdout.close()  # one that still writes ends by this
            status = child.wait()
        if status != 0:
            lines = _read_capped(err, 1 << 20).decode(errors="replace")
            done = Completed(argv=tuple(argv), returncode=status, stdout=b"", stderr=lines)
            raise ToolError(f"{argv[0]}: {done.first_error_line()}")


def run_on_terminal(argv: Sequence[str]) -> int:
    """Run a program that talks to the user, such as an editor, and return its exit status.

    It shares our terminal and our signals.  Raises MissingToolError.
    """
    program = find_tool(argv[0])
    with subprocess.Popen([program, *argv[1:]]) as child:
        return child.wait()


@contextlib.contextmanager
def _spawned(
    argv: list[str],
    *,
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    child = None
    try:
        # A signal inside Popen would leave a child that runs on: qemu-img makes a file anew after
        # whoever cleans up has removed it.
        with signals_later():
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, "LC_ALL": "C", **(env or {})},
                pass_fds=(*pass_fds, *_inherited.get()),
                start_new_session=True,
            )
        yield child
    except BaseException:
        if child is not None:
            _kill_group(child)
        raise


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    child.wait()


def _read_capped(stream: IO[bytes], limit: int) -> bytes:
    stream.seek(0)
    return stream.read(limit)


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """Hold Ctrl-C, SIGTERM and SIGHUP back until the block is done, then deliver them.

    For what cannot be left half-way: a commit, which takes seconds (its qemu-img, in a session of
    its own, does not hear the terminal's signals), or a child that nobody would know of.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        heard.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
        if heard:
            os.kill(os.getpid(), heard[0])
