"""Flipped bytes in real headers of every format: an answer or an ImageError, never anything else.

The image is flipped in place, vetted (also with the whole chain) and restored, so that one case
costs microseconds, not a copy.
"""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.readonly import bochs, cloop, dmg
from imgtools.errors import ImgtoolsError
from imgtools.image.chain import resolve_disk
from imgtools.image.header import ImageHeader
from imgtools.image.vet import vet
from imgtools.model.disks import DiskRequest

pytestmark = pytest.mark.direct

CASES = 300
INTERESTING = (0x00, 0x01, 0x7F, 0x80, 0xFF, 0x0A, 0x22, 0x3A)
SUBFORMATS = {
    "qcow2": "qcow2",
    "qcow2-old": "qcow2:compat=0.10",
    "qcow": "qcow",
    "qed": "qed",
    "vdi": "vdi",
    "vhd-dynamic": "vpc",
    "vhd-fixed": "vpc:subformat=fixed",
    "vhdx": "vhdx",
    "parallels": "parallels",
    "luks": "luks:key-secret=s,iter-time=10",
    "vmdk-sparse": "vmdk",
    "vmdk-flat": "vmdk:subformat=monolithicFlat",
    "vmdk-stream": "vmdk:subformat=streamOptimized",
}
# Which no tool makes.
WRITTEN = {
    "bochs": bochs,
    "bochs-old": partial(bochs, version=1),
    "cloop": cloop,
    "dmg": dmg,
    "dmg-fork": partial(dmg, fork=True),
}
_BASE_FORMATS = ("qcow2", "qed", "vmdk")


@pytest.fixture(scope="module", params=[*SUBFORMATS, *WRITTEN], ids=str)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Target:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param in WRITTEN:
        path = folder / "image.dmg"
        path.write_bytes(WRITTEN[request.param](os.urandom(1 << 17).ljust(1 << 20, b"\0")))
        return Target(path, request.param.partition("-")[0])
    image_format, _, options = SUBFORMATS[request.param].partition(":")
    path = folder / "image"
    words = ["-f", image_format, *(["-o", options] if options else [])]
    if image_format in _BASE_FORMATS and not options:
        qemu_img("create", "-q", "-f", image_format, folder / "base", "4M")
        words += ["-b", "base", "-F", image_format]
    secret = ["--object", "secret,id=s,data=x"] if image_format == "luks" else []
    qemu_img("create", "-q", *secret, *words, path, "4M")
    if image_format == "qcow2" and not options:
        qemu_img("snapshot", "-c", "before", path)
        qemu_img("bitmap", "--add", path, "changes")
    return Target(path, image_format)


def qemu_img(*words: object) -> None:
    """Run the real qemu-img."""
    argv = ["qemu-img", *map(str, words)]
    for _ in range(10):
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        # Its key derivation measures CPU time, and gives up now and then on a busy machine.
        if "CPU usage" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr


class Target:
    """An image and the places in it worth flipping: its first kilobyte and what is not zero."""

    def __init__(self, path: Path, image_format: str) -> None:
        self.path, self.format = path, image_format
        content = path.read_bytes()
        used = [place for place in range(0, len(content), 16) if any(content[place : place + 16])]
        ends = range(max(0, len(content) - 4096), len(content)) if image_format == "dmg" else ()
        self.places = sorted({*range(min(1024, len(content))), *used[:4096], *ends})

    def flip(self, changes: dict[int, int]) -> dict[int, int]:
        """Write bytes at the places of ``changes`` (indexes); return what stood there."""
        old = {}
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            for index, value in changes.items():
                place = self.places[index % len(self.places)]
                old.setdefault(index, os.pread(descriptor, 1, place)[0])
                os.pwrite(descriptor, bytes([value]), place)
        finally:
            os.close(descriptor)
        return old


values = st.one_of(st.sampled_from(INTERESTING), st.integers(0, 255))


@settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=st.dictionaries(st.integers(0, 1 << 20), values, min_size=1, max_size=8))
def test_flipped_bytes(target: Target, changes: dict[int, int]) -> None:
    # One change per place, or restoring would not.
    changes = {index % len(target.places): value for index, value in changes.items()}
    old = target.flip(changes)
    try:
        for image_format in (None, target.format):
            answer(target.path, image_format)
    finally:
        target.flip(old)


def answer(path: Path, image_format: str | None) -> None:
    try:
        header = vet(path, image_format)
    except ImgtoolsError:
        return
    assert isinstance(header, ImageHeader)
    assert header.virtual_size >= 0
    try:
        resolve_disk(DiskRequest(path=path, format=image_format), untrusted=True)
    except ImgtoolsError:
        return
    assert header.fatal is None
