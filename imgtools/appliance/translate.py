"""From libguestfs's texts to one meaningful line and the command that cures it.

libguestfs says "guestfs_launch failed" and leaves the reason in pages of events; the patterns here
are messages of qemu 7.2, supermin 5.2 and libguestfs 1.48, seen in their sources or in reports.
"""

from __future__ import annotations

import errno
import re

from imgtools.appliance.library import CallError
from imgtools.appliance.preflight import KERNEL_CURE
from imgtools.errors import (
    ApplianceError,
    ApplianceKernelError,
    ApplianceSpaceError,
    GuestFileNotFoundError,
    GuestIsADirectoryError,
    GuestNotADirectoryError,
    GuestOperationError,
    GuestSymlinkLoopError,
)

DOCTOR = "imgtools doctor"

_GUEST_ERRORS: dict[int, type[GuestOperationError]] = {
    errno.ENOENT: GuestFileNotFoundError,
    errno.ENAMETOOLONG: GuestFileNotFoundError,
    errno.ENOTDIR: GuestNotADirectoryError,
    errno.EISDIR: GuestIsADirectoryError,
    errno.ELOOP: GuestSymlinkLoopError,
}
_MEANING: dict[int, str] = {
    errno.ENOENT: "no such file or directory in the guest",
    errno.ENAMETOOLONG: "no such file or directory in the guest (the name is too long)",
    errno.ENOTDIR: "is not a directory in the guest",
    errno.EISDIR: "is a directory in the guest",
    errno.ELOOP: "too many symbolic links in the guest",
}

_CAUSES: list[tuple[re.Pattern[str], type[ApplianceError], str]] = [
    (
        re.compile(r"(?i)failed to find a suitable kernel|no suitable kernel"),
        ApplianceKernelError,
        KERNEL_CURE,
    ),
    (
        re.compile(r"(?i)/boot/\S+: Permission denied|vmlinu\S*: Permission denied"),
        ApplianceKernelError,
        "sudo chmod 0644 /boot/vmlinuz-*",
    ),
    (
        re.compile(r"(?i)No space left on device|Disk quota exceeded"),
        ApplianceSpaceError,
        "free some space, or set TMPDIR and LIBGUESTFS_CACHEDIR to a folder that has some",
    ),
    (
        re.compile(r"(?i)kvm_\w+: Assertion|failed to set MSR|KVM: entry failed|kvm run failed"),
        ApplianceError,
        "LIBGUESTFS_BACKEND_SETTINGS=force_tcg works without KVM",
    ),
    (
        re.compile(r"(?i)cannot set up guest memory|Cannot allocate memory|Out of memory"),
        ApplianceError,
        "free some memory, or ask for less with IMGTOOLS_MEMSIZE (MiB)",
    ),
    (re.compile(r"(?i)Kernel panic[^\n]*"), ApplianceError, DOCTOR),
    (re.compile(r"qemu-system-\S+: (?!warning)[^\n]+"), ApplianceError, DOCTOR),
    (re.compile(r"supermin: [^\n]+"), ApplianceError, DOCTOR),
]


def launch_error(message: str, log: list[bytes]) -> ApplianceError:
    """The one meaningful line of a launch that failed."""
    text = message + "\n" + b"".join(log).decode(errors="replace")
    for pattern, kind, hint in _CAUSES:
        if found := pattern.search(text):
            return kind(f"the appliance did not start: {_line_of(text, found)}", hint=hint)
    return ApplianceError(f"the appliance did not start: {first_line(message)}", hint=DOCTOR)


def died_error(message: str, log: list[bytes]) -> ApplianceError:
    """The appliance ended in the middle of its work."""
    text = b"".join(log).decode(errors="replace")
    for pattern, kind, hint in _CAUSES:
        if found := pattern.search(text):
            return kind(f"the appliance died: {_line_of(text, found)}", hint=hint)
    return ApplianceError(f"the appliance died: {first_line(message)}", hint=DOCTOR)


def guest_error(error: CallError, path: bytes) -> GuestOperationError:
    """What went wrong with a path inside the guest."""
    shown = path.decode("utf-8", errors="surrogateescape")
    kind = _GUEST_ERRORS.get(error.errno, GuestOperationError)
    return kind(f"{shown}: {_MEANING.get(error.errno) or first_line(error.message)}")


def mount_reason(message: str) -> str:
    """What mount(8) says, without the path inside the appliance and its advice."""
    found = re.search(r"mount: \S+: (.+)", message)
    return found[1].strip() if found else first_line(message)


def first_line(text: str) -> str:
    """The first line that says something, without libguestfs's own prefix and advice."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[0] if lines else "no reason given"
    return (
        re.sub(r"^(guestfs_)?\w+: (?=\S)", "", line)[:300] if "failed" not in line else line[:300]
    )


def _line_of(text: str, found: re.Match[str]) -> str:
    start = text.rfind("\n", 0, found.start()) + 1
    end = text.find("\n", found.end())
    return text[start : end if end >= 0 else len(text)].strip()[:300]
