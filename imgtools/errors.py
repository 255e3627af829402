"""Every exception imgtools raises on purpose, with its stable code, exit code and hint.

Charter: the bottom of the import tree, imported by every room, imports nothing of ours.
Libraries raise; only ``cli.main`` turns an error into text and an exit status.  Each class
carries a dotted ``code`` that scripts may match on (it never changes once released) and the
``exit_code`` of the scale in docs/exit-codes.md.  An error message says what happened and to
which file; the ``hint`` says what to do about it.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_GUEST = 3
EXIT_BAD_IMAGE = 4
EXIT_APPLIANCE = 5
EXIT_GUEST_OPERATION = 6
EXIT_MISSING = 7
EXIT_REFUSED = 8
EXIT_FINDINGS = 10
EXIT_WARNINGS = 20


class ImgtoolsError(Exception):
    """Something failed; the base of every error we raise.  Exit code 1."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ImgtoolsError):
    """The command line or the configuration makes no sense."""

    code = "usage"
    exit_code = EXIT_USAGE


class ConfigError(UsageError):
    """The configuration file or an ``IMGTOOLS_*`` variable has a bad value."""

    code = "usage.config"


class OutputError(ImgtoolsError):
    """What was read cannot be written to where it should go (a full disk …)."""

    code = "output"


class NoGuestError(ImgtoolsError):
    """The disks hold no operating system that we recognise."""

    code = "guest.none"
    exit_code = EXIT_NO_GUEST


class SeveralGuestsError(NoGuestError):
    """The disks hold several operating systems and the command needs one."""

    code = "guest.several"


class NoDomainError(ImgtoolsError):
    """libvirt knows no such domain, or the domain has no disks that we can open."""

    code = "domain.none"
    exit_code = EXIT_NO_GUEST


# --- images ----------------------------------------------------------------------------------


class ImageError(ImgtoolsError):
    """An image is bad, missing, damaged or of a kind we do not support."""

    code = "image.bad"
    exit_code = EXIT_BAD_IMAGE


class ImageNotFoundError(ImageError):
    """The image does not exist."""

    code = "image.not-found"


class ImageUnreadableError(ImageError):
    """The image exists but cannot be read (permissions, a directory, a FIFO, I/O errors)."""

    code = "image.unreadable"


class ImageTruncatedError(ImageError):
    """The image ends before what its header promises."""

    code = "image.truncated"


class ImageChainError(ImageError):
    """The backing chain is broken: a missing, looping or damaged backing file."""

    code = "image.chain"


class ImageUnsupportedError(ImageError):
    """The image is well formed, but of a format or feature we cannot read."""

    code = "image.unsupported"


class SnapshotNotFoundError(ImageError):
    """The image holds no internal snapshot of that name."""

    code = "image.snapshot"


class EncryptedError(ImageError):
    """An image or a volume is encrypted and no key given opens it."""

    code = "image.encrypted"


class EnginesDisagreeError(ImageError):
    """The appliance read other bytes than the direct engine had already given out."""

    code = "image.engines-disagree"


# --- the direct engine: reasons to take the appliance instead ---------------------------------


class DirectError(ImageError):
    """The direct engine cannot give a certain answer.

    With ``--engine auto`` this is never shown: it is the reason for taking the appliance.
    """

    code = "direct.failed"


class DirectUnsupportedError(DirectError):
    """A format, volume layer, filesystem or feature that the direct engine cannot read."""

    code = "direct.unsupported"


class UncleanError(DirectError):
    """A journal needs replay, so what is on disk may be stale."""

    code = "direct.unclean"


class DamagedError(DirectError):
    """A structure on disk is inconsistent."""

    code = "direct.damaged"


# --- the appliance -----------------------------------------------------------------------------


class ApplianceError(ImgtoolsError):
    """The libguestfs appliance did not start or died."""

    code = "appliance.failed"
    exit_code = EXIT_APPLIANCE


class ApplianceKernelError(ApplianceError):
    """The appliance has no kernel to boot: none in /boot, or it is unreadable."""

    code = "appliance.kernel"


class ApplianceSpaceError(ApplianceError):
    """There is no space for the appliance or its overlays."""

    code = "appliance.space"


class NoTemplateError(ApplianceError):
    """No saved appliance fits this host, or the launch must not use one; no launch fails by it."""

    code = "appliance.no-template"


# --- inside the guest -----------------------------------------------------------------------------


class GuestOperationError(ImgtoolsError):
    """An operation on the guest's files failed."""

    code = "guest.operation"
    exit_code = EXIT_GUEST_OPERATION


class GuestFileNotFoundError(GuestOperationError):
    """No such file or directory in the guest."""

    code = "guest.file-not-found"


class GuestNotADirectoryError(GuestOperationError):
    """A path component in the guest is not a directory."""

    code = "guest.not-a-directory"


class GuestIsADirectoryError(GuestOperationError):
    """A file was wanted and the guest has a directory there."""

    code = "guest.is-a-directory"


class GuestNotAFileError(GuestOperationError):
    """A regular file was wanted and the guest has a device, FIFO or socket there."""

    code = "guest.not-a-file"


class GuestSymlinkLoopError(GuestOperationError):
    """Too many symbolic links in a row."""

    code = "guest.symlink-loop"


class GuestFileTooLargeError(GuestOperationError):
    """A file that we parse is larger than the bound for its kind."""

    code = "guest.file-too-large"


# --- things that are missing -------------------------------------------------------------------


class MissingError(ImgtoolsError):
    """A tool or a binding is not installed.  The hint is the command that installs it."""

    code = "missing"
    exit_code = EXIT_MISSING


class MissingToolError(MissingError):
    """A program is not on PATH."""

    code = "missing.tool"


class MissingBindingError(MissingError):
    """A Python binding is not importable."""

    code = "missing.binding"


class ToolError(ImgtoolsError):
    """A program we ran failed in a way no finer class covers."""

    code = "tool.failed"


class ToolTimeoutError(ToolError):
    """A program we ran did not end in time and was killed."""

    code = "tool.timeout"


# --- refusals ----------------------------------------------------------------------------------


class RefusedError(ImgtoolsError):
    """Refused for safety."""

    code = "refused"
    exit_code = EXIT_REFUSED


class UntrustedReferenceError(RefusedError):
    """An image header names something that may not be followed: no image, or out of bounds."""

    code = "refused.untrusted"


class InUseError(RefusedError):
    """Another process uses the image: a running guest, qemu-img, another imgtools."""

    code = "refused.in-use"


class ReadOnlyError(RefusedError):
    """The image, its storage or its format cannot be written."""

    code = "refused.read-only"


class SpaceError(RefusedError):
    """There is too little free space to change the image safely; it is as it was."""

    code = "refused.space"


class JournalError(RefusedError):
    """The record of an interrupted commit cannot be used: damaged, forged, or for another image."""

    code = "refused.journal"


class CommitError(ImgtoolsError):
    """A commit stopped half-way; its record and overlay are kept, so that it can be finished."""

    code = "transaction.incomplete"


class LibvirtError(ImgtoolsError):
    """libvirt answered with an error, or no daemon answered."""

    code = "libvirt.failed"
