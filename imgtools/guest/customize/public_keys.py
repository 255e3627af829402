"""Public SSH keys as sshd(8), AUTHORIZED_KEYS FILE FORMAT, wants them; checked before use.

A line is ``[options] type base64 [comment]``; the base64 begins with the type again, as a string of
RFC 4253, section 6.6.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from imgtools.errors import UsageError

MAX_KEYS = 1000
_WORD = re.compile(rb'(?:[^\s"]|"(?:\\.|[^"\\])*")+')
_PRIVATE = (b"PRIVATE KEY-----", b"PuTTY-User-Key-File", b"SSH PRIVATE KEY FILE FORMAT")


def check_keys(data: bytes, where: str) -> tuple[bytes, ...]:
    """The lines with keys.  Raises UsageError, which shows nothing of a key."""
    if any(mark in data for mark in _PRIVATE):
        raise UsageError(
            f"{where}: this is a private key, which belongs on no other machine",
            hint="the public one is in the file of that name with .pub",
        )
    if b"BEGIN SSH2 PUBLIC KEY" in data:
        raise UsageError(f"{where}: not in OpenSSH's format", hint="ssh-keygen -i -f FILE")
    lines = [line.strip() for line in data.splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not keys:
        raise UsageError(f"{where}: holds no key", hint="a line as: ssh-ed25519 AAAA... comment")
    if len(keys) > MAX_KEYS:
        raise UsageError(f"{where}: holds more than {MAX_KEYS} keys")
    for number, key in enumerate(keys, 1):
        found = blob_of(key)
        if found is None or b"-cert-v" in found[0]:
            which = f"key {number} of {len(keys)}" if len(keys) > 1 else "this"
            what = "a certificate" if found else "no public key"
            raise UsageError(f"{where}: {which} is {what}", hint="as: ssh-ed25519 AAAA... comment")
    return keys


def blob_of(line: bytes) -> tuple[bytes, bytes] | None:
    """Type and base64 of a line, with options before it or without; None for no key."""
    words = _WORD.findall(line, 0, 1 << 16)
    for at in range(min(2, len(words) - 1)):
        kind, blob = words[at], words[at + 1]
        try:
            data = base64.b64decode(blob, validate=True)
        except binascii.Error:
            continue
        if len(data) > len(kind) + 8 and data.startswith(len(kind).to_bytes(4, "big") + kind):
            return kind, blob
    return None


def default_key_file(home: Path) -> Path:
    """The caller's default public key: the newest id*.pub, as ssh-copy-id(1) finds it."""
    folder = home / ".ssh"
    try:
        names = [p for p in folder.glob("id*.pub") if not p.name.endswith("-cert.pub")]
        newest = max(names, key=lambda path: path.stat().st_mtime_ns, default=None)
    except OSError as error:
        raise UsageError(f"--ssh-inject: {folder}: {error.strerror}") from None
    if newest is None:
        raise UsageError(
            f"--ssh-inject: no public key in {folder}", hint="USER:file:NAME or USER:string:KEY"
        )
    return newest
