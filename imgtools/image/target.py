"""What a new image may be: its format, and the options of qemu-img's ``-o``.

Which formats qemu-img can write and compress: ``qemu-img --help`` and block/*.c of qemu 7.2.  Its
qcow driver claims to compress, and fails at the end of every conversion; vmdk compresses only as
streamOptimized and writes uncompressed data otherwise without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from imgtools.errors import UsageError

WRITABLE = ("raw", "qcow2", "qcow", "vmdk", "vdi", "vpc", "vhdx", "qed", "parallels", "luks")
COMPRESSIBLE = ("qcow2", "vmdk")
ENCRYPTABLE = ("qcow2", "luks")
MEASURABLE = ("raw", "qcow2", "luks")
_STREAM = "streamOptimized"

_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
# Options that name other files, or a key, by ways that we do not vouch for.
_REFUSED = {
    "backing_file": "the copy holds the whole backing chain; an overlay is made by image create -b",
    "backing_fmt": "the copy holds the whole backing chain; an overlay is made by image create -b",
    "data_file": "the copy is one file, which appears whole or not at all",
    "data_file_raw": "the copy is one file, which appears whole or not at all",
    "size": "the copy has its source's size; image resize changes it afterwards",
    "encryption": "the old AES encryption is broken; --target-key-file FILE encrypts with LUKS",
    "encrypt.key-secret": "the key is given by --target-key-file FILE",
    "key-secret": "the key is given by --target-key-file FILE",
}


def parse_options(words: Sequence[str]) -> dict[str, str]:
    """The options of several ``-o NAME=VALUE,…``; a comma in a value is doubled, as for qemu-img.

    Raises UsageError.
    """
    options: dict[str, str] = {}
    for word in words:
        for part in word.replace(",,", "\0").split(","):
            name, equals, value = part.replace("\0", ",").partition("=")
            if name in ("help", "?"):
                raise UsageError("-o help: not here", hint="see: qemu-img create -f FORMAT -o help")
            if not _NAME.fullmatch(name):
                raise UsageError(f"-o {word}: not NAME=VALUE", hint="-o cluster_size=1M")
            if name in _REFUSED:
                raise UsageError(f"-o {name}: not for this command", hint=_REFUSED[name])
            options[name] = value if equals else "on"
    return options


def complete_options(
    target_format: str, options: Mapping[str, str], *, compress: bool = False, key: bool = False
) -> dict[str, str]:
    """The options with what we add: a VHD's exact size, a compressed VMDK's kind, encryption.

    ``key``: there is one, the secret `imgtools.image.secret.TARGET`.  Raises UsageError for what
    does not fit together.
    """
    result = dict(options)
    if target_format == "vpc":
        # Without it the size is rounded up to what old geometries can say.
        result.setdefault("force_size", "on")
    if compress:
        _check_compression(target_format, result)
    if target_format not in ENCRYPTABLE and key:
        raise UsageError(
            f"--target-key-file: {target_format} images cannot be encrypted",
            hint=f"formats that can: {', '.join(ENCRYPTABLE)}",
        )
    if not key and (target_format == "luks" or "encrypt.format" in result):
        raise UsageError("an encrypted target needs a key", hint="--target-key-file FILE")
    if key and target_format == "luks":
        result["key-secret"] = "target"
    elif key:
        result.setdefault("encrypt.format", "luks")
        result["encrypt.key-secret"] = "target"
    return result


def joined(options: Mapping[str, str]) -> list[str]:
    """The options as words for qemu-img."""
    if not options:
        return []
    return ["-o", ",".join(f"{name}={value.replace(',', ',,')}" for name, value in options.items())]


def _check_compression(target_format: str, options: dict[str, str]) -> None:
    if target_format not in COMPRESSIBLE:
        raise UsageError(
            f"-c: {target_format} images cannot be compressed",
            hint=f"formats that can: {', '.join(COMPRESSIBLE)}",
        )
    if target_format == "vmdk" and options.setdefault("subformat", _STREAM) != _STREAM:
        raise UsageError(f"-c: a vmdk is compressed only with -o subformat={_STREAM}")
