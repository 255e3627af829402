"""Block nodes for remote disks: nbd, nbd+unix, ssh, http(s), ftp(s).

The same rule as for files: the format is stated (``--format``) or follows from the name's suffix,
else raw; it is never probed.  A remote qcow2 may not name a backing or data file: its header is
checked through a raw node first (docs/interop/qcow2.txt of qemu), and the backing node is pinned to
null.  Other formats over the network are refused, as their headers can name files of this host.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from imgtools.errors import (
    ImageError,
    ImageUnsupportedError,
    ImgtoolsError,
    MissingToolError,
    ToolError,
    ToolTimeoutError,
    UntrustedReferenceError,
    UsageError,
)
from imgtools.model.disks import Disk
from imgtools.nodes import OF_CURL
from imgtools.process import run

NBD_PORT = 10809
SSH_PORT = 22
_DATA_FILE_BIT = 1 << 2
_NO_SERVER = "is the server running, and the export's name right?"
_URL = re.compile(r"[!-~]+")
TIMEOUT = 30.0
"""Seconds that a server has to answer when an image is opened."""


def remote_node(disk: Disk, folder: Path) -> dict[str, Any]:
    """The pinned, read-only block node of a disk that only a URI names.

    Raises UsageError for a URI without what it needs, ImageUnsupportedError,
    UntrustedReferenceError for a header that names other files.
    """
    assert disk.uri is not None
    image_format = disk.request.format or _format_by_name(disk.uri)
    if image_format not in ("raw", "qcow2"):
        raise ImageUnsupportedError(
            f"{shown(disk.uri)}: {image_format} over the network is not supported",
            hint="copy the image here first",
        )
    raw = {"driver": "raw", "read-only": True, "file": _protocol_node(disk.uri)}
    if image_format == "raw":
        return raw
    _check_header(disk.uri, raw, folder)
    return {**raw, "driver": "qcow2", "backing": None}


def refuse_stranger(uri: str, image_format: str | None) -> None:
    """Raise UntrustedReferenceError for what only a server that is trusted may show: a qcow2.

    Its header is read twice, by us and by qemu, and the server could answer twice differently.
    """
    if (image_format or _format_by_name(uri)) == "qcow2":
        raise UntrustedReferenceError(
            f"{shown(uri)}: a qcow2 of a server that is not trusted is not opened over the network",
            hint="copy the image here first",
        )


def no_answer(uri: str, spec: str, error: ToolError) -> ImgtoolsError:
    """What to raise when qemu-img, given ``spec``, could not open what ``uri`` names."""
    name = shown(uri)
    text = error.message.replace(spec, name).removeprefix("qemu-img: ")
    if isinstance(error, ToolTimeoutError):
        return ImageError(f"{name}: no answer within {TIMEOUT:g} s", hint=_NO_SERVER)
    if "Unknown driver" in text or "Unknown protocol" in text:
        return MissingToolError(
            f"{name}: this qemu-img has no driver for {urlsplit(uri).scheme}",
            hint="apt install qemu-block-extra, or copy the image here first",
        )
    text = text.removeprefix(f"Could not open {name!r}: ")
    text = text.removeprefix("CURL: Error opening file: ")
    return ImageError(f"{name}: {text.rstrip('. ')}", hint=_hint(text))


def _hint(text: str) -> str | None:
    if "byte ranges" in text:
        return "the server cannot give out parts of a file: copy the image here first"
    if "URL returned error" in text or "No such file" in text:
        return "check the name, and whether you may read it"
    if "known_hosts" in text or "host key" in text:
        return "log in there once by ssh, and look at its host key"
    if "authenticate" in text:
        return (
            "a key is needed that ssh takes without asking: in ssh-agent or ~/.ssh, for ssh://USER@"
        )
    if "qcow2" in text:
        return "the image may be damaged, or of another format (-f raw)"
    return _NO_SERVER


def shown(uri: str) -> str:
    """The URI without a password."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return uri.replace(f":{parts.password}@", ":***@", 1)


def _format_by_name(uri: str) -> str:
    suffix = PurePosixPath(urlsplit(uri).path).suffix.lower()
    known = {".qcow2": "qcow2", ".vmdk": "vmdk", ".vdi": "vdi", ".vhd": "vpc", ".vhdx": "vhdx"}
    return known.get(suffix, "raw")


def _require_url(uri: str) -> None:
    if not _URL.fullmatch(uri):
        raise UsageError(
            f"{shown(uri)!a}: not a URL: spaces and other bytes are written as %XX",
            hint="a space is %20",
        )


def _protocol_node(uri: str) -> dict[str, Any]:
    parts = urlsplit(uri)
    if parts.scheme in ("nbd", "nbd+unix"):
        return {"driver": "nbd", "read-only": True, **_nbd_server(uri, parts)}
    if parts.scheme == "ssh":
        server = _inet(uri, parts, SSH_PORT)
        del server["type"]
        user = {"user": unquote(parts.username)} if parts.username else {}
        node = {"driver": "ssh", "server": server, "path": unquote(parts.path), **user}
        return {**node, "read-only": True}
    if parts.scheme in OF_CURL:
        _require_url(uri)
        _inet(uri, parts, 0)
        return {"driver": parts.scheme, "url": uri, "read-only": True}
    raise ImageUnsupportedError(
        f"{shown(uri)}: qemu has no driver for {parts.scheme}", hint="copy the image here first"
    )


def _nbd_server(uri: str, parts: SplitResult) -> dict[str, Any]:
    export = {"export": name} if (name := unquote(parts.path.lstrip("/"))) else {}
    if parts.scheme == "nbd":
        return {"server": _inet(uri, parts, NBD_PORT), **export}
    sockets = parse_qs(parts.query).get("socket")
    if not sockets:
        raise UsageError(f"{uri}: no socket named", hint="nbd+unix:///EXPORT?socket=/PATH")
    return {"server": {"type": "unix", "path": sockets[0]}, **export}


def _inet(uri: str, parts: SplitResult, port: int) -> dict[str, str]:
    try:
        number = parts.port or port
    except ValueError:
        raise UsageError(f"{shown(uri)}: the port is not a number") from None
    if not parts.hostname:
        raise UsageError(f"{shown(uri)}: no host named", hint=f"{parts.scheme}://HOST/...")
    return {"type": "inet", "host": parts.hostname, "port": str(number)}


def _check_header(uri: str, raw: dict[str, Any], folder: Path) -> None:
    """Refuse a remote qcow2 that names a backing or an external data file."""
    copy = folder / "remote-header"
    source = "json:" + json.dumps(raw)
    try:
        run(
            [
                *("qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=512", "count=1"),
                *(f"if={source}", f"of={copy}"),
            ],
            timeout=TIMEOUT,
        )
        header = copy.read_bytes()[:512]
    except ToolError as error:
        raise no_answer(uri, source, error) from error
    except OSError as error:
        raise ImageError(f"{shown(uri)}: {folder}: {error.strerror}") from error
    finally:
        copy.unlink(missing_ok=True)
    if len(header) < 104 or header[:4] != b"QFI\xfb":
        raise ImageError(f"{shown(uri)}: not a qcow2 image", hint="-f raw, if it is raw")
    version, backing = struct.unpack_from(">IQ", header, 4)
    features = struct.unpack_from(">Q", header, 72)[0] if version >= 3 else 0
    if backing or features & _DATA_FILE_BIT:
        raise UntrustedReferenceError(
            f"{shown(uri)}: a remote qcow2 may not name a backing or data file",
            hint="copy the image and what it rests on here first",
        )
