"""Run programs of the guest, in the appliance, with the guest's files as their root.

`run` is what steps call; `check` says beforehand whether it can work.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from imgtools.errors import GuestOperationError
from imgtools.guest.customize import ids
from imgtools.guest.customize.ids import afterwards
from imgtools.guest.linux.elf import find_arch
from imgtools.guest.linux.findings import Findings
from imgtools.guest.steps import Content, Done, Write
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles
from imgtools.model.engine import Ran
from imgtools.model.files import Stat

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/sh",
    "TERM": "dumb",
    "LC_ALL": "C",
    "DEBIAN_FRONTEND": "noninteractive",
    # systemctl(1): enable and disable units, but start none.
    "SYSTEMD_OFFLINE": "1",
}
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
"""Variables of this host that programs get with a network, as from virt-customize."""

_RESOLVER = b"/etc/resolv.conf"
_ALSO = {"x86_64": {"i386": "i686"}}
"""Host -> architectures that its kernel runs as well, with the personality for setarch(8)."""


def check(tree: GuestTree, what: str) -> str:
    """The personality that the guest's programs need; empty for the host's own.

    Raises GuestOperationError if they cannot run here; ``what`` is the option that wants it.
    """
    arch, host = find_arch(tree, Findings("guest")), os.uname().machine
    if arch == host:
        return ""
    if arch in _ALSO.get(host, {}):
        return _ALSO[host][arch]
    if arch:
        raise GuestOperationError(
            f"{what}: programs of the guest are for {arch} and do not run on this host ({host})",
            hint="do it on a host of that kind, or at the guest's first boot: --firstboot-command",
        )
    raise GuestOperationError(
        f"{what}: no program of Linux was found in the guest that could run (/bin/sh)",
        hint="only Linux guests can run commands",
    )


def _failed(ran: Ran) -> bool:
    return ran.status != 0


def run(
    guest: GuestFiles, script: bytes, *, what: str, failed: Callable[[Ran], bool] = _failed
) -> Ran:
    """Run a shell script by the guest's /bin/sh as root, all filesystems mounted, /proc, /sys,
    /dev; stdin is empty, stdout and stderr are one.  ``what`` names it in messages; ``failed``
    tells whether the output is to be shown.

    Raises GuestOperationError if the guest's programs cannot run here (another architecture, no
    shell); a status that is not 0 is the caller's business.
    """
    return run_words(guest, [b"/bin/sh", b"-c", script], what=what, failed=failed)


def run_checked(guest: GuestFiles, script: bytes, *, what: str) -> bytes:
    """`run`, but a status that is not 0 raises GuestOperationError with the end of the output."""
    return checked(guest, run(guest, script, what=what), what=what)


def run_words(
    guest: GuestFiles,
    words: Sequence[bytes],
    *,
    what: str,
    failed: Callable[[Ran], bool] = _failed,
) -> Ran:
    """`run` for a program and its arguments."""
    personality = check(guest, what)
    environment = dict(ENVIRONMENT)
    if guest.network:
        environment |= {name: os.environ[name] for name in PROXIES if name in os.environ}
    guest.ears.begins(what)
    with _resolver(guest), ids.unset_ids_stay_unset(guest):
        ran = guest.run(words, environment=environment, personality=personality)
    guest.ears.said(ran.output, failed(ran))
    return ran


def run_file(guest: GuestFiles, script: Path, *, what: str) -> Ran:
    """Run a program or script of this host in the guest; without ``#!`` it is one for /bin/sh."""
    with work_folder(guest) as folder:
        path = folder + b"/" + os.fsencode(script.name)
        Write(path=path, content=Content(file=script), mode="0700").perform(guest)
        with guest.open(path) as stream:
            head = stream.read(4)
        starts_itself = head.startswith(b"#!") or head == b"\x7fELF"
        return run_words(guest, [path] if starts_itself else [b"/bin/sh", path], what=what)


def last_line(lines: Sequence[str]) -> str:
    """Of what a program printed, the line that says why it failed, as most do."""
    return lines[-1] if lines else ""


def checked(
    guest: GuestFiles,
    ran: Ran,
    *,
    what: str,
    hint: str | None = None,
    reason: Callable[[Sequence[str]], str] = last_line,
) -> bytes:
    """The output of a program that ended well.  Raises GuestOperationError, naming it.

    ``reason`` picks one of the lines of its output, stripped and not empty.
    """
    if ran.status == 0:
        return ran.output
    why = reason(lines_of(ran))
    ended = f"signal {ran.status - 128}" if ran.status > 128 else f"exit status {ran.status}"
    if hint is None and not guest.network:
        hint = "it had no network (--network gives it one)"
    raise GuestOperationError(f"{what}: {ended}" + (f": {why[:200]}" if why else ""), hint=hint)


def lines_of(ran: Ran) -> list[str]:
    """The lines of the output, stripped, without those that are empty."""
    lines = (line.strip() for line in ran.output.decode(errors="replace").splitlines())
    return [line for line in lines if line]


@contextmanager
def work_folder(guest: GuestFiles) -> Iterator[bytes]:
    """A new folder in the guest's root, removed afterwards."""
    folder = b"/.imgtools-" + secrets.token_hex(8).encode()
    guest.mkdir(folder, 0o755)
    with afterwards(lambda: guest.remove(folder, recursive=True)):
        yield folder


@contextmanager
def _resolver(guest: GuestFiles) -> Iterator[None]:
    """With a network: the appliance's resolv.conf(5) in the place of the guest's own.

    What the program itself made of it (a package, a script) is kept.
    """
    content = guest.resolver()
    if not content or not guest.is_dir(b"/etc"):
        yield
        return
    aside = b"/etc/.imgtools-" + secrets.token_hex(8).encode()
    there = guest.try_lstat(_RESOLVER) is not None
    if there:
        guest.rename(_RESOLVER, aside)
    guest.create(_RESOLVER, [content])
    guest.chmod(_RESOLVER, 0o644)
    ours = guest.lstat(_RESOLVER)
    with afterwards(lambda: _put_back(guest, ours, aside if there else b"")):
        yield


def _put_back(guest: GuestFiles, ours: Stat, aside: bytes) -> None:
    found = guest.try_lstat(_RESOLVER)
    same = found is not None and (found.ino, found.mtime_ns) == (ours.ino, ours.mtime_ns)
    if same:
        guest.remove(_RESOLVER)
    if aside and same:
        guest.rename(aside, _RESOLVER)
    elif aside:
        guest.remove(aside)


def ran_done(what: str) -> list[Done]:
    """What a step says that ran a program."""
    return [Done(verb="ran", path=os.fsencode(what))]
