"""The transaction: locks, formats, space, and what is left when something goes wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fixtures
from tests.appliance.kills import Point, run_and_kill
from tests.appliance.small import (
    MIB,
    MOUNT,
    check_refused,
    content,
    content_of,
    digest,
    left_beside,
    small,
    write,
)
from tests.cli import PROGRAM, imgtools

pytestmark = pytest.mark.appliance

# --- formats and layouts -------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", ["qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed"])
def test_every_format_that_qemu_writes(image_format: str, tmp_path: Path) -> None:
    image = small(tmp_path, image_format)
    assert write(image).code == 0
    assert content_of(image, "/file") == b"new\n"
    assert left_beside(image) == []
    if image_format != "vpc":  # which has no check
        subprocess.run(["qemu-img", "check", "-q", "-f", image_format, image], check=True)


@pytest.mark.parametrize("kind", ["monolithicFlat", "twoGbMaxExtentSparse"])
def test_extents_of_a_vmdk(kind: str, tmp_path: Path) -> None:
    image = small(tmp_path, "vmdk", "-o", f"subformat={kind}")
    assert len(list(tmp_path.iterdir())) > 1
    done = write(image)
    assert done.code == 0, done.stderr
    assert content_of(image, "/file") == b"new\n"
    assert left_beside(image) == []


def test_a_qcow2_with_a_data_file(tmp_path: Path) -> None:
    image = small(tmp_path, "qcow2", "-o", f"data_file={tmp_path / 'data'}")
    done = write(image)
    assert done.code == 0, done.stderr
    assert content_of(image, "/file") == b"new\n"
    subprocess.run(["qemu-img", "check", "-q", image], check=True)


def test_internal_snapshots_stay(tmp_path: Path) -> None:
    image = small(tmp_path, "qcow2")
    assert write(image, "old").code == 0
    subprocess.run(["qemu-img", "snapshot", "-c", "before", image], check=True)
    assert write(image).code == 0
    assert content(image) == b"new\n"
    subprocess.run(["qemu-img", "check", "-q", image], check=True)
    subprocess.run(["qemu-img", "snapshot", "-a", "before", image], check=True)
    assert content(image) == b"old\n"


def test_a_backing_chain_is_changed_at_its_top_only(tmp_path: Path) -> None:
    base = small(tmp_path, "raw")
    before = digest(base)
    middle, top = tmp_path / "middle.qcow2", tmp_path / "top,a=b:c\n.qcow2"
    for path, backing, kind in ((middle, base, "raw"), (top, middle, "qcow2")):
        make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", str(backing)]
        subprocess.run([*make, f"file:{path}"], check=True)
    middle_before = digest(middle)
    assert write(top).code == 0
    assert content(top) == b"new\n"
    assert (digest(base), digest(middle)) == (before, middle_before)


def test_a_block_device(tmp_path: Path) -> None:
    image = small(tmp_path)
    device = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        check_refused(write(Path(device)), "--workdir")
        assert write(Path(device), "new", "--workdir", str(tmp_path)).code == 0
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert content(image) == b"new\n"


def test_two_disks_of_one_guest_are_one_change(tmp_path: Path) -> None:
    """A volume over two disks; a kill in the commit; recovered from the second disk."""
    disks = []
    for source in fixtures.disks("lvm-multi"):
        path = tmp_path / source.name
        shutil.copyfile(source, path)
        disks += ["-a", str(path)]
    images = [Path(name) for name in disks[1::2]]
    listed = json.loads(imgtools("filesystems", "--json", *disks).stdout)["result"]
    volume = next(row["name"] for row in listed if row["name"].count("/") == 3)
    mount = ("-m", volume)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(4 * MIB))
    words: list[str | Path] = ["write", *disks, *mount, "/big", "--from", big]
    for delay in (0.0, 0.01, 0.02, 0.04):
        killed = run_and_kill(words, images[0], Point("commit", delay))
        if not killed.reached or not images[0].with_name(f".{images[0].name}.imgtools").exists():
            continue
        seen = imgtools("cat", *disks, *mount, "/big")
        assert seen.stdout == big.read_bytes()
        assert "interrupted" in seen.stderr
        done = imgtools("recover", "--json", images[1])
        assert done.code == 0, done.stderr
        (found,) = json.loads(done.stdout)["result"]
        assert found["images"] == [str(image) for image in images]
        break
    else:
        pytest.fail("no kill hit the commit")
    assert imgtools("cat", *disks, *mount, "/big").stdout == big.read_bytes()
    for image in images:
        assert left_beside(image) == []


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    check_refused(imgtools("rm", "-a", "nbd://localhost:1/x", "/file"), "remote")
    stream = tmp_path / "stream.vmdk"
    shutil.copyfile(fixtures.get("vmdk-stream"), stream)
    before = digest(stream)
    check_refused(imgtools("touch", "-a", stream, "/nothing"), "as it was")
    assert digest(stream) == before
    assert left_beside(stream) == []


@pytest.mark.parametrize("engine", ["auto", "appliance"])
def test_a_hibernated_guest_is_refused(engine: str, tmp_path: Path) -> None:
    image, swap = small(tmp_path), tmp_path / "swap.raw"
    convert = ["qemu-img", "convert", "-O", "raw", str(fixtures.get("swap")), str(swap)]
    subprocess.run(convert, check=True)
    before = digest(image)
    words = ["--engine", engine, "-a", str(image), "-a", str(swap), *MOUNT]
    with swap.open("r+b") as stream:
        stream.seek(
            4096 - 10
        )  # the signature of include/linux/swap.h, as kernel/power/swap.c has it
        stream.write(b"S1SUSPEND\0")
    check_refused(imgtools("touch", *words, "/file"), "hibernated")
    assert digest(image) == before
    assert left_beside(image) == left_beside(swap) == []


# --- locks -------------------------------------------------------------------------------------


@contextmanager
def editing(image: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An ``imgtools edit`` whose editor is open; it goes on when the file ``go`` appears."""
    script = folder / "editor"
    script.write_text(
        f'#!/bin/sh\n: >"{folder}/open"\n'
        f'while [ ! -e "{folder}/go" ]; do sleep 0.05; done\necho edited >"$1"\n'
    )
    script.chmod(0o755)
    with subprocess.Popen(
        [PROGRAM, "edit", "-a", image, *MOUNT, "/file"],
        env={**os.environ, "EDITOR": str(script), "VISUAL": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        deadline = time.monotonic() + 60
        while not (folder / "open").exists():
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        try:
            yield child
        finally:
            (folder / "go").touch()
            child.wait(120)


def test_nobody_writes_while_we_work(tmp_path: Path) -> None:
    image = small(tmp_path, "qcow2")
    assert write(image, "old").code == 0
    image.chmod(0o600)
    with editing(image, tmp_path) as child:
        check_refused(write(image, "other"), "another imgtools", f"process {child.pid}")
        written = subprocess.run(
            ["qemu-io", "-f", "qcow2", "-c", "write 0 512", image], capture_output=True, check=False
        )
        assert written.returncode != 0
        assert b"lock" in written.stderr
        guest = subprocess.run(
            [*qemu(image), "-daemonize"], capture_output=True, text=True, check=False
        )
        assert guest.returncode != 0
        assert "lock" in guest.stderr
        # Readers are welcome: the image does not change yet.
        subprocess.run(["qemu-img", "info", image], check=True, capture_output=True)
        assert content(image) == b"old\n"
    assert child.returncode == 0
    assert content(image) == b"edited\n"


def qemu(image: Path, image_format: str = "qcow2") -> list[str]:
    drive = f"file={image},format={image_format},if=virtio"
    return ["qemu-system-x86_64", "-M", "q35,accel=tcg", "-m", "64", "-S", "-display", "none",
            "-drive", drive]  # fmt: skip


def test_an_image_held_by_qemu_is_refused(tmp_path: Path) -> None:
    image = small(tmp_path, "qcow2")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    overlay = elsewhere / "overlay.qcow2"
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, overlay]
    subprocess.run(make, check=True)
    before = digest(image)
    for held, why in ((image, "is being written"), (overlay, "backing file")):
        with subprocess.Popen([*qemu(held), "-monitor", "stdio"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as guest:  # fmt: skip
            try:
                assert guest.stdout is not None
                guest.stdout.read(10)  # it is up, and holds its locks
                check_refused(write(image), why, f"process {guest.pid}")
            finally:
                guest.kill()
        assert digest(image) == before
        assert left_beside(image) == []
    assert write(image).code == 0


def test_overlays_beside_an_image_are_not_broken(tmp_path: Path) -> None:
    image = small(tmp_path, "qcow2")
    overlay = tmp_path / "overlay.qcow2"
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image.name, overlay]
    subprocess.run(make, check=True)
    before = digest(image)
    check_refused(write(image), "overlay.qcow2", "--break-overlays")
    assert digest(image) == before
    assert write(overlay).code == 0
    assert write(image, "new", "--break-overlays").code == 0


# --- space and storage -------------------------------------------------------------------------


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_read_only_storage_is_refused(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "ro", "160m") as folder:
        image = small(folder)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        check_refused(write(image), "Read-only file system")


def test_a_full_disk(tmp_path: Path) -> None:
    """No space to begin; none left during the work; none for the commit."""
    with tmpfs(tmp_path / "full", "120m") as folder:
        image = small(folder)
        before = digest(image)
        filler = folder / "filler"
        filler.write_bytes(bytes(70 * MIB))
        check_refused(write(image), "MiB free", "--workdir")
        filler.write_bytes(bytes(20 * MIB))  # enough to begin, not enough for the whole
        big = tmp_path / "big"
        big.write_bytes(os.urandom(40 * MIB))
        (folder / "filler2").write_bytes(bytes(MIB))
        squeeze = threading.Thread(target=_squeeze, args=(folder,))
        squeeze.start()
        done = imgtools("write", "-a", image, *MOUNT, "/big", "--from", big)
        squeeze.join()
        check_refused(done, "nearly full")
        assert digest(image) == before
        assert left_beside(image) == []
        # The overlay elsewhere: now the sparse image itself may not be able to grow.
        done = imgtools("write", "-a", image, *MOUNT, "/big", "--from", big, "--workdir", tmp_path)
        check_refused(done, "as it was")
        assert digest(image) == before
        assert left_beside(image) == []


def _squeeze(folder: Path) -> None:
    """Once the overlay is there, leave some 30 MiB."""
    deadline = time.monotonic() + 60
    while not any(folder.glob(".disk.raw.imgtools-*.qcow2")) and time.monotonic() < deadline:
        time.sleep(0.01)
    found = os.statvfs(folder)
    spare = found.f_bfree * found.f_frsize - 30 * MIB
    if spare > 0:
        (folder / "squeeze").write_bytes(bytes(spare))


def test_a_commit_that_runs_out_of_space_is_finished_later(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "full", "120m") as folder:
        image = small(folder)
        big = tmp_path / "big"
        big.write_bytes(os.urandom(36 * MIB))
        filler = folder / "filler"
        free = os.statvfs(folder)
        spare = bytes(free.f_bfree * free.f_frsize - 42 * MIB)  # the commit needs some 37 MiB
        (folder / "spare").write_bytes(spare)
        ended = threading.Event()
        fill = threading.Thread(target=_fill_in_commit, args=(image, filler, ended))
        fill.start()
        words = ["--workdir", str(tmp_path)]
        done = imgtools("write", "-a", image, *MOUNT, "/big", "--from", big, *words)
        ended.set()
        fill.join()
        assert done.code == 1, done
        assert "imgtools recover" in done.stderr
        assert content_of(image, "/big") == big.read_bytes()  # through the overlay
        assert imgtools("recover", image).code == 1  # still no space
        filler.unlink()
        done = imgtools("recover", image)
        assert (done.code, "finished" in done.text) == (0, True)
        assert left_beside(image) == []
        assert content_of(image, "/big") == big.read_bytes()


def _fill_in_commit(image: Path, filler: Path, ended: threading.Event) -> None:
    record = image.with_name(f".{image.name}.imgtools")
    while not ended.is_set():
        if record.exists() and b'"committing"' in record.read_bytes():
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
                while True:
                    stream.write(bytes(MIB))
            return
        time.sleep(0.0005)
