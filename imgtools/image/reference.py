"""Turn a name that an image header stores into a host path, or refuse it.

The rules are qemu's (block.c: path_has_protocol, path_combine): a name whose first ``:`` stands
before any ``/`` has a protocol; a relative name is relative to the folder of the image that
stores it.  Only plain files are followed.
"""

from __future__ import annotations

import os
from pathlib import Path

from imgtools.errors import ImageChainError, UntrustedReferenceError

# Block drivers that qemu takes from a file name's prefix (qemu 7 to 10, block/*.c).
_DRIVERS = (
    "blkdebug blklogwrites blkverify cloop dmg fat fd ftp ftps gluster gluster+tcp gluster+unix "
    "gluster+rdma host_cdrom host_device http https iscsi iser json nbd nbd+tcp nbd+unix nfs "
    "null-aio null-co nvme quorum rbd replication sftp sheepdog ssh tftp vvfat vxhs"
)
PROTOCOLS = frozenset(_DRIVERS.split())


def protocol_of(name: bytes) -> bytes | None:
    """The protocol of a stored name, or None for a plain file name."""
    head, colon, _ = name.partition(b":")
    return head if colon and b"/" not in head else None


def resolve_reference(stored: bytes, image: Path, what: str) -> Path:
    """Return the absolute host path that ``stored`` in ``image`` means; opens nothing.

    ``what`` is the kind of reference, for messages (``backing file``).  Raises
    UntrustedReferenceError for remote or JSON names, ImageChainError for senseless ones.
    """
    shown = os.fsdecode(stored)
    name = stored
    protocol = protocol_of(name)
    if protocol == b"file":
        name = name[len(b"file:") :]
        if not name.startswith(b"/"):
            raise ImageChainError(
                f"{image}: its {what} {shown!r} is relative to whatever folder one stands in",
                hint=_rebase(image),
            )
        if name.startswith(b"//") and not name.startswith(b"///"):
            raise ImageChainError(f"{image}: its {what} {shown!r} is on another host")
    elif protocol is not None:
        _refuse_protocol(protocol, shown, image, what)
    if not name or b"\0" in name:
        raise ImageChainError(f"{image}: its {what} has a senseless name: {shown!r}")
    # Not normalised: with a symbolic link before it, ``..`` is not what the text suggests.
    return image.absolute().parent / os.fsdecode(name)


def _refuse_protocol(protocol: bytes, shown: str, image: Path, what: str) -> None:
    kind = os.fsdecode(protocol)
    if kind.lower() in PROTOCOLS:
        raise UntrustedReferenceError(
            f"{image}: its {what} is not a plain file but {_short(shown)}",
            hint=f"if you trust it, make a plain copy first: qemu-img convert; or {_rebase(image)}",
        )
    raise ImageChainError(
        f"{image}: its {what} {_short(shown)} names an unknown protocol {_short(kind)}",
        hint=f"a file name with a colon must be stored as ./NAME or as an absolute path; "
        f"{_rebase(image)}",
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:117] + "...")


def _rebase(image: Path) -> str:
    return f"correct it with: qemu-img rebase -u -b NEW -F FORMAT {image}"
