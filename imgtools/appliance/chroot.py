"""Run a program of the guest inside the appliance, with the guest's filesystems as its root.

Everything happens in a mount and a PID namespace of its own: when the program ends, whatever it
left running is killed with the namespace, every mount is gone, and so nothing keeps libguestfs
from unmounting.  The first process stays outside of the new root, by which systemctl(1) and
ischroot(1) see that they run in a chroot.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from imgtools.appliance.launch import Appliance
from imgtools.errors import ApplianceError, GuestOperationError
from imgtools.model.engine import Ran

MAX_OUTPUT = 1 << 20
"""Bytes of output that are kept: the last ones.  A reply of libguestfs holds 4 MiB."""
MAX_WORDS = 64 << 10
"""Bytes of the words of a program; Linux takes 128 KiB (MAX_ARG_STRLEN) and quoting needs some."""
TIMEOUT = 24 * 3600.0
"""Seconds; only against a program that never ends when nobody is there to interrupt it."""

_ROOT = "/tmp/imgtools.root"  # noqa: S108 (inside the appliance)
_STATUS = "/tmp/imgtools.status"  # noqa: S108
_SYSROOT = "/sysroot"  # where the appliance mounts what it is asked to (guestfs-internals(1))

_OUTSIDE = """
umask 022
mkdir -p {root}
rm -f {status}
unshare --mount --propagation private --pid --fork --kill-child \
  /bin/sh -c {inside} </dev/null 2>&1 | tail -c {limit} | tr -d '\\000'
printf '\n'
cat {status} 2>/dev/null || echo none
exit 0
"""

# A folder that the guest does not have, or has as a link, is left as it is.
_INSIDE = """
set -e
at() {{
  [ -d "$2" ] || return 0
  [ "$(readlink -f "$2")" = "$2" ] || {{ echo "$3 is a link, and a mountpoint"; exit 1; }}
  mount --bind "$1" "$2"
}}
{mounts}
on() {{ [ -d "$1" ] && [ ! -L "$1" ]; }}
on {root}/proc && mount -t proc proc {root}/proc
on {root}/sys && mount --bind /sys {root}/sys
if on {root}/dev; then
  mount --bind /dev {root}/dev
  mkdir -p /dev/pts /dev/shm
  mount --bind /dev/pts {root}/dev/pts
  mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs {root}/dev/shm
fi
on {root}/run && mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs {root}/run
mkdir -p {root}/run/lock 2>/dev/null || :
ip link set lo up 2>/dev/null || :
ended=0
{program} || ended=$?
echo $ended >{status}
"""


def run(
    appliance: Appliance,
    mounts: Sequence[tuple[bytes, bytes]],
    words: Sequence[bytes],
    *,
    environment: Mapping[str, str],
    personality: str = "",
) -> Ran:
    """Run a program with ``mounts`` (path in the guest, mountpoint in the appliance) as its root.

    The paths in the guest are resolved, the first is ``/``.  ``personality`` is a name for
    setarch(8).  stdin is empty; stdout and stderr are one.  Raises GuestOperationError where the
    root cannot be set up or the words are too long, ApplianceError.
    """
    if sum(map(len, words)) > MAX_WORDS:
        raise GuestOperationError(
            f"a command of more than {MAX_WORDS >> 10} KiB", hint="put it into a script: --run FILE"
        )
    inside = _INSIDE.format(
        root=_ROOT,
        status=_STATUS,
        mounts="\n".join(_mount(*one) for one in mounts),
        program=_program(words, environment, personality),
    )
    script = _OUTSIDE.format(
        root=_ROOT, status=_STATUS, inside=shlex.quote(inside), limit=MAX_OUTPUT
    )
    reply = appliance.shell(script, what="a command of the guest", timeout=TIMEOUT)
    output, _, last = reply.rstrip(b"\n").rpartition(b"\n")
    if not (last.isdigit() and len(last) < 4) and last != b"none":
        raise ApplianceError("the appliance did not say how a command of the guest ended")
    if last == b"none":
        lines = output.decode(errors="replace").strip().splitlines()
        raise GuestOperationError(
            f"programs of the guest cannot be run: {lines[-1] if lines else 'no reason given'}"
        )
    return Ran(status=int(last), output=output)


def _mount(point: bytes, mountpoint: bytes) -> str:
    source = shlex.quote(_SYSROOT + _text(mountpoint))
    target = shlex.quote(_ROOT + _text(point).rstrip("/"))
    return f"at {source} {target} {shlex.quote(_text(point))}"


def _program(words: Sequence[bytes], environment: Mapping[str, str], personality: str) -> str:
    variables = [f"{name}={value}" for name, value in environment.items()]
    before = ["setarch", personality] if personality else []
    line = ["env", "-i", *variables, *before, "chroot", _ROOT, *map(_text, words)]
    return shlex.join(line)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="surrogateescape")
