"""``--selinux-relabel``: give every file the SELinux label of the guest's own policy.

By the guest's setfiles(8), in the appliance, with the guest's file_contexts.  (libguestfs's own
call wants setfiles in the appliance, which Debian's has not.)  Where it cannot run, /.autorelabel
makes the guest relabel itself at its next boot, which restarts it once.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.customize.chroot import run
from imgtools.guest.customize.placing import put_file
from imgtools.guest.customize.system import find_system, read_text
from imgtools.guest.steps import Done
from imgtools.guest.tree import GuestTree, show
from imgtools.guest.writing import GuestFiles

OPTION = "--selinux-relabel"
CONFIG = b"/etc/selinux/config"
AUTORELABEL = b"/.autorelabel"
_SETFILES = (b"/usr/sbin/setfiles", b"/sbin/setfiles")
_WORD = re.compile(rb"[A-Za-z0-9_-]{1,64}\Z")


def parse(value: str) -> Relabel:
    """A flag."""
    if value:
        raise UsageError(f"{OPTION}: takes no value")
    return Relabel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Relabel:
    """Relabel now if that is possible, else at the next boot."""

    def idle(self, tree: GuestTree) -> bool:
        """Never certain; but that there is no SELinux is known before a launch."""
        file_contexts(tree)
        return False

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Run setfiles, or make /.autorelabel."""
        contexts = file_contexts(guest)
        why = _relabel(guest, contexts)
        if why:
            done = put_file(guest, AUTORELABEL, b"")
            detail = f"the guest relabels at its next boot: {why}"
            return [Done(verb=one.verb, path=one.path, detail=detail) for one in done]
        done = [Done(verb="changed", path=b"/", detail="SELinux labels, by the guest's setfiles")]
        if guest.try_lstat(AUTORELABEL) is not None:
            guest.remove(AUTORELABEL)
            done.append(Done(verb="removed", path=AUTORELABEL, detail="not needed any more"))
        return done


def file_contexts(tree: GuestTree) -> bytes:
    """The file_contexts of the guest's policy (selinux_config(5)).

    Raises GuestOperationError for a guest without SELinux.
    """
    find_system(tree, OPTION)
    config = read_text(tree, CONFIG)
    if config is None:
        raise GuestOperationError(f"{OPTION}: the guest has no SELinux ({show(CONFIG)})")
    policy = _setting(config, b"SELINUXTYPE") or b"targeted"
    path = b"/etc/selinux/" + policy + b"/contexts/files/file_contexts"
    if not _WORD.match(policy) or not tree.is_file(path):
        raise GuestOperationError(
            f"{OPTION}: the guest has no SELinux policy ({show(path)})",
            hint="install its policy (selinux-policy-targeted, selinux-policy-default)",
        )
    return path


def _setting(config: bytes, key: bytes) -> bytes:
    found = re.findall(rb"(?m)^[ \t]*" + key + rb"[ \t]*=[ \t]*([^\s#]*)", config)
    return found[-1] if found else b""


def _relabel(guest: GuestFiles, contexts: bytes) -> str:
    """Run setfiles; why it did not work, or empty."""
    config = read_text(guest, CONFIG) or b""
    if _setting(config, b"SELINUX") == b"disabled":
        return "SELinux is disabled in its configuration"
    program = next((path for path in _SETFILES if guest.is_file(path)), None)
    if program is None:
        return "it has no setfiles"
    try:
        ran = run(guest, _script(guest, program, contexts), what=OPTION)
    except GuestOperationError as error:
        return error.message.removeprefix(f"{OPTION}: ")
    if ran.status != 0:
        lines = ran.output.decode(errors="replace").strip().splitlines()
        return f"setfiles ended with {ran.status}: {lines[-1][:200] if lines else 'no word'}"
    return ""


def _script(guest: GuestFiles, program: bytes, contexts: bytes) -> bytes:
    """setfiles stays on one filesystem, so it is told all that can hold labels."""
    points = " ".join(shlex.quote(show(mount.mountpoint)) for mount in guest.mounts)
    command = f"{show(program)} -F -e /dev -e /proc -e /sys -e /run {show(contexts)}"
    text = f"""\
for point in {points}; do
    case $(stat -f -c %T "$point" 2>/dev/null) in
        msdos|vfat|exfat|fuseblk|ntfs*|isofs|iso9660) ;;
        *) {command} "$point" || exit ;;
    esac
done
"""
    return text.encode(errors="surrogateescape")
