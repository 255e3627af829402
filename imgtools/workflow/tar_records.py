"""Headers of a tar archive in POSIX's pax format, from bytes.

tarfile takes names as text and marks an archive with any binary value as such, which GNU tar
complains about; names and attributes of a guest are bytes, so the extended records are made
here and only the fixed ustar block is tarfile's.  Source: pax(1), "pax Extended Header"; SCHILY
and RHT keywords as GNU tar writes them.
"""

from __future__ import annotations

import stat as _stat
import struct
import tarfile
from collections.abc import Mapping

from imgtools.model.files import Stat

BLOCK = 512
_MAX_OCTAL = 8**7 - 1
_MAX_SIZE = 8**11 - 1
_LINK_OR_NAME = 99  # tarfile adds a slash to the name of a folder
_BILLION = 10**9

_TYPES = {
    _stat.S_IFREG: tarfile.REGTYPE,
    _stat.S_IFDIR: tarfile.DIRTYPE,
    _stat.S_IFLNK: tarfile.SYMTYPE,
    _stat.S_IFCHR: tarfile.CHRTYPE,
    _stat.S_IFBLK: tarfile.BLKTYPE,
    _stat.S_IFIFO: tarfile.FIFOTYPE,
}

# linux/posix_acl.h; letters as getfacl writes them.
_ACL_TAGS = {1: "user", 2: "user", 4: "group", 8: "group", 16: "mask", 32: "other"}
_ACL_NAMED = (2, 8)
_ACL_VERSION = 2


def header(
    name: bytes,
    found: Stat,
    *,
    target: bytes | None = None,
    hard_link: bool = False,
    owner: tuple[bytes, bytes] = (b"", b""),
    more: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """The header blocks of one member; ``more`` are further pax records (attributes).

    ``target`` is that of a symbolic link, or the earlier member of a ``hard_link``; ``owner`` are
    the names of user and group.
    """
    size = found.size if _stat.S_ISREG(found.mode) and not hard_link else 0
    records: dict[bytes, bytes] = {}
    info = tarfile.TarInfo()
    info.type = tarfile.LNKTYPE if hard_link else _TYPES[_stat.S_IFMT(found.mode)]
    info.mode = _stat.S_IMODE(found.mode)
    info.name = _short(name, b"path", records)
    info.linkname = _short(target or b"", b"linkpath", records)
    info.uname = _short(owner[0], b"uname", records, 31)
    info.gname = _short(owner[1], b"gname", records, 31)
    info.uid = _number(found.uid, b"uid", records, _MAX_OCTAL)
    info.gid = _number(found.gid, b"gid", records, _MAX_OCTAL)
    info.size = _number(size, b"size", records, _MAX_SIZE)
    info.mtime = _time(found.mtime_ns, records)
    if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = _device(found.rdev)
    records |= more or {}
    fixed = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    return (_extended(records) if records else b"") + fixed


def padding(size: int) -> bytes:
    """The zeros that follow ``size`` bytes of content up to a whole block."""
    return bytes(-size % BLOCK)


def _short(value: bytes, keyword: bytes, records: dict[bytes, bytes], limit: int = 0) -> str:
    """The value for the fixed block; one that does not fit, or is no ASCII, becomes a record."""
    if len(value) <= (limit or _LINK_OR_NAME) and value.isascii():
        return value.decode("ascii")
    records[keyword] = value
    return value[: limit or _LINK_OR_NAME].decode("ascii", "replace").replace("\ufffd", "?")


def _number(value: int, keyword: bytes, records: dict[bytes, bytes], limit: int) -> int:
    if value <= limit:
        return value
    records[keyword] = b"%d" % value
    return 0


def _time(nanoseconds: int, records: dict[bytes, bytes]) -> int:
    seconds, rest = divmod(nanoseconds, _BILLION)
    if rest or not 0 <= seconds <= _MAX_SIZE:
        # A negative time counts its fraction away from zero: -0.5 is half a second before 1970.
        whole, part = divmod(abs(nanoseconds), _BILLION)
        sign = b"-" if nanoseconds < 0 else b""
        fraction = b"." + (b"%09d" % part).rstrip(b"0") if part else b""
        records[b"mtime"] = sign + b"%d" % whole + fraction
    return min(max(seconds, 0), _MAX_SIZE)


def _device(rdev: int) -> tuple[int, int]:
    """glibc's gnu_dev_major and gnu_dev_minor, as far as the format has room."""
    major = ((rdev >> 8) & 0xFFF) | ((rdev >> 32) & ~0xFFF)
    minor = (rdev & 0xFF) | ((rdev >> 12) & ~0xFF)
    return min(major, _MAX_OCTAL), min(minor, _MAX_OCTAL)


def _extended(records: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(_record(keyword, value) for keyword, value in records.items())
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + padding(len(body))


def _record(keyword: bytes, value: bytes) -> bytes:
    """``LENGTH keyword=value\\n``, where LENGTH counts itself as well."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d" % length + rest


def acl_text(value: bytes) -> bytes | None:
    """An ACL attribute as text with numeric ids (``user::rw-,user:1000:r--``).

    None for one of another version than Linux's.
    """
    if len(value) < 4 or (len(value) - 4) % 8 or struct.unpack_from("<I", value)[0] != _ACL_VERSION:
        return None
    parts = []
    for at in range(4, len(value), 8):
        tag, permissions, number = struct.unpack_from("<HHI", value, at)
        if tag not in _ACL_TAGS:
            return None
        name = str(number) if tag in _ACL_NAMED else ""
        letters = "".join(c if permissions & 4 >> i else "-" for i, c in enumerate("rwx"))
        parts.append(f"{_ACL_TAGS[tag]}:{name}:{letters}")
    return "\n".join(parts).encode() + b"\n"
