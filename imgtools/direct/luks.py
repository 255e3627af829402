"""LUKS1 and LUKS2 volumes: headers checked here, keys and ciphers by dissect.fve.

The header comes from the guest: what it asks of key derivation is bounded, and a LUKS2 header
must carry a right checksum.  Format: cryptsetup's docs/on-disk-format*.pdf.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from imgtools.direct.importing import import_only
from imgtools.direct.streams import Adapter, BlockStream, Window
from imgtools.direct.xts import XtsStream
from imgtools.errors import DamagedError, DirectUnsupportedError, MissingBindingError
from imgtools.model.disks import KeySpec

SECTOR = 512
MAX_ITERATIONS = 20_000_000  # PBKDF2: about ten seconds
MAX_MEMORY_KIB = 1 << 20  # Argon2: cryptsetup's own default limit, 1 GiB
MAX_PASSES_KIB = 16 << 20
MAX_LANES = 16
MAX_KEY_BYTES = 128
MAX_STRIPES = 4000
LUKS2_SIZES = tuple(1 << bits for bits in range(14, 23))  # header and JSON area
KEY_ENABLED, KEY_DISABLED = 0x00AC71F3, 0x0000DEAD
HASHES = {"sha1", "sha256", "sha512"}
CIPHER = re.compile(r"aes-(xts-plain(64)?|cbc-(plain(64)?|essiv:sha256))")


@dataclass(frozen=True, slots=True, kw_only=True)
class LuksHeader:
    """What is readable without a key.  ``raw`` is the LUKS1 header or the LUKS2 JSON."""

    version: int
    uuid: str
    raw: bytes


def read_header(stream: BlockStream, device: str) -> LuksHeader:
    """Read the header on ``device``.  Raises DamagedError, DirectUnsupportedError."""
    head = stream.read_at(0, 592)
    if len(head) < 592 or head[:6] != b"LUKS\xba\xbe":
        raise DamagedError(f"{device}: no LUKS header")
    version = struct.unpack_from(">H", head, 6)[0]
    uuid = head[168:208].split(b"\0", 1)[0].decode("ascii", errors="replace")
    if version == 1:
        return LuksHeader(version=1, uuid=uuid, raw=head)
    if version == 2:
        return LuksHeader(version=2, uuid=uuid, raw=_read_luks2(stream, device))
    raise DirectUnsupportedError(f"{device}: LUKS version {version}")


def _read_luks2(stream: BlockStream, device: str) -> bytes:
    """The JSON area of the primary header, if it is whole and not older than the secondary."""
    size = struct.unpack(">Q", stream.read_at(8, 8))[0]
    if size not in LUKS2_SIZES:
        raise DamagedError(f"{device}: LUKS2 header of a wrong size")
    primary, secondary = stream.read_at(0, size), stream.read_at(size, size)
    if not _whole(primary) or len(secondary) < size:
        raise DamagedError(f"{device}: LUKS2 header with a wrong checksum")
    if secondary[:6] == b"SKUL\xba\xbe" and _whole(secondary) and secondary[16:24] > primary[16:24]:
        raise DamagedError(f"{device}: its LUKS2 headers are out of step")
    return primary[4096:].split(b"\0", 1)[0]


def _whole(header: bytes) -> bool:
    algorithm = header[72:104].split(b"\0", 1)[0]
    blank = header[:448] + bytes(64) + header[512:]
    return algorithm == b"sha256" and hashlib.sha256(blank).digest() == header[448:480]


def keys_for(device: str, uuid: str, keys: Sequence[KeySpec]) -> list[bytes]:
    """The secrets given for this volume: by device name or UUID, then for ``all``."""
    own = [key for key in keys if key.id == device or (uuid and key.id.lower() == uuid.lower())]
    return [key.secret for key in (*own, *(key for key in keys if key.id == "all"))]


def open_luks(
    stream: BlockStream, header: LuksHeader, secrets: Sequence[bytes], device: str
) -> BlockStream | None:
    """Return the decrypted volume, or None when no secret opens it.

    Raises DirectUnsupportedError for ciphers, layouts or key derivation beyond what dissect or
    our bounds allow.
    """
    fve: Any = import_only("dissect.fve.luks.luks")
    metadata = _metadata(header, device)
    offset, size = _check_segment(metadata, stream.size, device)
    volume = fve.LUKS.__new__(fve.LUKS)  # its constructor would read unchecked headers
    volume.fh, volume.metadata = stream, metadata
    volume._active_volume_key = volume._active_keyslot_id = None  # noqa: SLF001
    for slot in metadata.keyslots.values():
        _check_keyslot(slot, offset, device)
    for digest in metadata.digests.values():
        if digest.type != "pbkdf2" or digest.hash not in HASHES:
            raise DirectUnsupportedError(f"{device}: LUKS with an unusual digest")
        if not 0 < digest.iterations <= MAX_ITERATIONS:
            raise DirectUnsupportedError(f"{device}: a LUKS digest asks for too much")
    volume._unlock_volume_key = lambda key, number: _volume_key(  # noqa: SLF001
        stream, metadata.keyslots[number], key
    )
    for secret in secrets:
        try:
            volume.unlock_with_passphrase(secret)
        except ValueError:
            continue
        return _plain(volume, Window(stream, offset, size))
    return None


def _plain(volume: Any, payload: Window) -> BlockStream:
    """The decrypted payload of an unlocked volume."""
    (segment,) = volume.metadata.segments.values()
    if not segment.encryption.startswith("aes-xts"):
        return Adapter(volume.open(), payload.size)
    return XtsStream(
        payload,
        volume._active_volume_key,  # noqa: SLF001
        sector=segment.sector_size,
        tweak=segment.iv_tweak or 0,
        narrow=not segment.encryption.endswith("64"),
    )


def _volume_key(stream: BlockStream, slot: Any, key: bytes) -> bytes:
    """Decrypt a slot's key material and merge its stripes."""
    length = slot.key_size * slot.af.stripes
    area = Window(stream, slot.area.offset, -(-length // SECTOR) * SECTOR)
    if slot.area.encryption.startswith("aes-xts"):
        narrow = not slot.area.encryption.endswith("64")
        material = XtsStream(area, key, narrow=narrow).read_at(0, length)
    else:
        crypto: Any = import_only("dissect.fve.crypto")
        cipher = crypto.create_cipher(slot.area.encryption, key, len(key) * 8)
        material = cipher.decrypt(area.read_at(0, area.size))[:length]
    merge = import_only("dissect.fve.luks.af").merge
    merged: bytes = merge(material, slot.key_size, slot.af.stripes, slot.af.hash)
    return merged


def _metadata(header: LuksHeader, device: str) -> Any:
    module: Any = import_only("dissect.fve.luks.metadata")
    if header.version == 1:
        return _metadata_1(module, header, device)
    document = json.loads(header.raw)
    if document.get("config", {}).get("requirements", {}).get("mandatory"):
        raise DirectUnsupportedError(f"{device}: LUKS2 volume in transition")
    document["tokens"] = {}  # where else keys might be; not for us
    document["keyslots"] = {
        number: slot
        for number, slot in document["keyslots"].items()
        if slot.get("type") == "luks2" and slot.get("priority") != 0
    }
    return module.Metadata.from_dict(document)


def _metadata_1(module: Any, header: LuksHeader, device: str) -> Any:
    phdr = import_only("dissect.fve.luks.c_luks").c_luks.luks_phdr(header.raw.ljust(1024, b"\0"))
    if any(block.active not in (KEY_ENABLED, KEY_DISABLED) for block in phdr.keyblock):
        raise DamagedError(f"{device}: damaged LUKS key slots")
    return module.Metadata.from_luks1_header(phdr)


def _check_segment(metadata: Any, available: int, device: str) -> tuple[int, int]:
    """Return the payload's offset and size in bytes."""
    segments = list(metadata.segments.values())
    if len(segments) != 1 or segments[0].type != "crypt" or segments[0].integrity:
        raise DirectUnsupportedError(f"{device}: LUKS volume with an unusual layout")
    segment = segments[0]
    if segment.flags or not CIPHER.fullmatch(segment.encryption):
        raise DirectUnsupportedError(f"{device}: LUKS with the cipher {segment.encryption[:40]}")
    size = available - segment.offset if segment.size == "dynamic" else int(segment.size)
    if segment.sector_size not in (512, 1024, 2048, 4096) or size % segment.sector_size:
        raise DirectUnsupportedError(f"{device}: LUKS with unusual sectors")
    if size <= 0 or segment.offset + size > available:
        raise DamagedError(f"{device}: its LUKS payload lies outside the volume")
    return segment.offset, size


def _check_keyslot(slot: Any, payload: int, device: str) -> None:
    """Refuse what would cost too much time or memory."""
    kdf, area, split = slot.kdf, slot.area, slot.af
    # What dissect cannot do it reports as a wrong key, so it is not asked.
    hashes = {split.hash, kdf.hash} if kdf.type == "pbkdf2" else {split.hash}
    if hashes - HASHES:
        raise DirectUnsupportedError(f"{device}: LUKS with the hashes {sorted(map(str, hashes))}")
    if kdf.type != "pbkdf2" and not import_only("dissect.fve.crypto.argon2").HAS_ARGON2:
        raise MissingBindingError(
            f"{device}: no library for Argon2", hint="pip install argon2-cffi"
        )
    if kdf.type == "pbkdf2":
        affordable = 0 < kdf.iterations <= MAX_ITERATIONS
    else:
        affordable = (
            0 < kdf.memory <= MAX_MEMORY_KIB
            and 0 < kdf.cpus <= MAX_LANES
            and 0 < kdf.time * kdf.memory <= MAX_PASSES_KIB
        )
    if not affordable:
        raise DirectUnsupportedError(f"{device}: a LUKS key slot asks for too much to be opened")
    length = slot.key_size * split.stripes
    if not 0 < slot.key_size <= MAX_KEY_BYTES or not 0 < split.stripes <= MAX_STRIPES:
        raise DirectUnsupportedError(f"{device}: a LUKS key slot of an unusual size")
    if area.offset + length > payload or not CIPHER.fullmatch(area.encryption):
        raise DirectUnsupportedError(f"{device}: a LUKS key slot of an unusual kind")
