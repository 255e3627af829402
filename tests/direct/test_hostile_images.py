"""Hostile image files through the command line: one line, the right exit code, no traceback.

Every case runs the real program as a user would, with bounded memory and time.
"""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.direct

IMGTOOLS = Path(sys.executable).with_name("imgtools")
ADDRESS_SPACE = 2 << 30
TIMEOUT = 60
COMMANDS = [
    ["inspect", "-a"],
    ["df", "-a"],
    ["filesystems", "-a"],
    ["info"],
]


def run(*words: str | Path, user: int | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run imgtools with bounded memory and time."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))

    return subprocess.run(
        [IMGTOOLS, *words],
        capture_output=True,
        check=False,
        timeout=TIMEOUT,
        preexec_fn=limit,
        user=user,
        env={**os.environ, "IMGTOOLS_ENGINE": "direct"},
    )


def assert_one_line(done: subprocess.CompletedProcess[bytes], exit_code: int, said: str) -> None:
    """The error is one line that says ``said``, and the exit code is ``exit_code``."""
    errors = done.stderr.decode()
    assert "Traceback" not in errors
    assert "internal error" not in errors
    assert done.returncode == exit_code, errors
    lines = [line for line in errors.splitlines() if "warning:" not in line]
    assert len(lines) == 1, errors
    assert said in lines[0], errors


def qcow2_header(
    *,
    size: int = 1 << 30,
    backing: bytes = b"",
    l1_offset: int = 0x30000,
    l1_size: int = 16,
    cluster_bits: int = 16,
) -> bytes:
    """A qcow2 v3 header (docs/interop/qcow2.txt in QEMU), padded to 4 KiB."""
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        b"QFI\xfb",
        3,
        512 if backing else 0,
        len(backing),
        cluster_bits,
        size,
        0,
        l1_size,
        l1_offset,
        0x10000,
        1,
        0,
        0,
        0,
        0,
        0,
        4,
        104,
    )
    return header.ljust(512, b"\0") + backing.ljust(4096 - 512, b"\0")


def qemu_img(*words: str | Path) -> None:
    """Run the real qemu-img."""
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


# --- files that are no image ---------------------------------------------------------------------


def make_empty(folder: Path) -> Path:
    path = folder / "empty.img"
    path.touch()
    return path


def make_directory(folder: Path) -> Path:
    path = folder / "folder.img"
    path.mkdir()
    return path


def make_missing(folder: Path) -> Path:
    return folder / "missing.qcow2"


def make_fifo(folder: Path) -> Path:
    path = folder / "pipe.img"
    os.mkfifo(path)
    return path


def make_device(folder: Path) -> Path:
    return Path("/dev/zero")


def make_dangling(folder: Path) -> Path:
    path = folder / "dangling.img"
    path.symlink_to("nowhere")
    return path


# --- headers that lie ----------------------------------------------------------------------------


def make_truncated(folder: Path) -> Path:
    path = folder / "truncated.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "100M")
    os.truncate(path, 70)
    return path


def make_l1_beyond(folder: Path) -> Path:
    path = folder / "l1.qcow2"
    path.write_bytes(qcow2_header(l1_offset=1 << 40).ljust(0x40000, b"\0"))
    return path


def make_huge(folder: Path) -> Path:
    path = folder / "huge.qcow2"
    path.write_bytes(qcow2_header(size=1 << 62).ljust(0x40000, b"\0"))
    return path


def make_cluster_bits(folder: Path) -> Path:
    path = folder / "bits.qcow2"
    path.write_bytes(qcow2_header(cluster_bits=63).ljust(0x40000, b"\0"))
    return path


def make_self_backed(folder: Path) -> Path:
    path = folder / "self.qcow2"
    path.write_bytes(qcow2_header(backing=b"self.qcow2").ljust(0x40000, b"\0"))
    return path


def make_cycle(folder: Path) -> Path:
    for one, other in (("a.qcow2", b"b.qcow2"), ("b.qcow2", b"a.qcow2")):
        (folder / one).write_bytes(qcow2_header(backing=other).ljust(0x40000, b"\0"))
    return folder / "a.qcow2"


def make_no_parent(folder: Path) -> Path:
    path = folder / "orphan.qcow2"
    path.write_bytes(qcow2_header(backing=b"gone.qcow2").ljust(0x40000, b"\0"))
    return path


def make_passwd_backed(folder: Path) -> Path:
    path = folder / "passwd.qcow2"
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", path, "10M")
    return path


def make_raw_in_disguise(folder: Path) -> Path:
    (folder / "secret.txt").write_text("the host's secret\n" * 100, encoding="ascii")
    path = folder / "guest-wrote-this.img"
    path.write_bytes(qcow2_header(backing=b"secret.txt").ljust(16 << 20, b"\0"))
    return path


def make_json_backed(folder: Path) -> Path:
    path = folder / "json.qcow2"
    name = b'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}'
    path.write_bytes(qcow2_header(backing=name).ljust(0x40000, b"\0"))
    return path


def make_vmdk_newlines(folder: Path) -> Path:
    path = folder / "lines.vmdk"
    path.write_bytes(b"# Disk DescriptorFile\n" + b"\n" * (8 << 20))
    return path


def make_vmdk_host_extent(folder: Path) -> Path:
    path = folder / "extent.vmdk"
    path.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        'createType="monolithicFlat"\nRW 8 FLAT "/etc/passwd" 0\n',
        encoding="ascii",
    )
    return path


REFUSED: dict[Callable[[Path], Path], tuple[int, str]] = {
    make_empty: (4, "empty.img"),
    make_directory: (4, "folder.img"),
    make_missing: (4, "missing.qcow2"),
    make_fifo: (4, "pipe.img"),
    make_device: (4, "/dev/zero"),
    make_dangling: (4, "dangling.img"),
    make_truncated: (4, "truncated.qcow2"),
    make_l1_beyond: (4, "l1.qcow2"),
    make_huge: (4, "huge.qcow2"),
    make_cluster_bits: (4, "bits.qcow2"),
    make_self_backed: (4, "self.qcow2"),
    make_cycle: (4, "a.qcow2"),
    make_no_parent: (4, "gone.qcow2"),
    make_passwd_backed: (8, "/etc/passwd"),
    make_raw_in_disguise: (8, "secret.txt"),
    make_json_backed: (8, "json.qcow2"),
    make_vmdk_newlines: (4, "lines.vmdk"),
    make_vmdk_host_extent: (8, "/etc/passwd"),
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path], command: list[str]
) -> None:
    exit_code, said = REFUSED[make]
    begin = time.monotonic()
    done = run(*command, make(tmp_path))
    assert time.monotonic() - begin < TIMEOUT / 2
    assert_one_line(done, exit_code, said)
    assert b"root:" not in done.stdout
    assert b"secret" not in done.stdout.replace(b"secret.txt", b"")


def test_an_unreadable_image(tmp_path: Path) -> None:
    image = tmp_path / "private.img"
    image.write_bytes(bytes(1 << 20))
    image.chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o111)
    assert_one_line(run("inspect", "-a", image, user=65534), 4, "private.img")


def test_a_raw_image_stays_raw(tmp_path: Path) -> None:
    image = make_raw_in_disguise(tmp_path)
    done = run("filesystems", "--all", "--format", "raw", "-a", image)
    assert done.returncode == 0, done.stderr
    assert b"secret" not in done.stdout
    assert_one_line(run("inspect", "--format", "raw", "-a", image), 3, "guest-wrote-this.img")


def test_untrusted_follows_nothing_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "top").mkdir()
    base, top = tmp_path / "base" / "base.qcow2", tmp_path / "top" / "top.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", base, "10M")
    qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "../base/base.qcow2", top)
    assert run("filesystems", "-a", top).returncode == 0
    assert_one_line(run("filesystems", "--untrusted", "-a", top), 8, "base.qcow2")


def test_a_cluster_that_inflates_without_end(tmp_path: Path) -> None:
    """One compressed cluster of qcow2 holds gigabytes of zeros once inflated."""
    path = tmp_path / "bomb.qcow2"
    compressor = zlib.compressobj(9, zlib.DEFLATED, -12)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(48))
    bomb += compressor.flush()
    data_offset, cluster = 0x60000, 1 << 16
    sectors = min((len(bomb) + 511) // 512, 255)
    l2_entry = (1 << 62) | (sectors << (62 - 8)) | data_offset
    image = bytearray(qcow2_header(size=cluster * 8).ljust(data_offset, b"\0"))
    struct.pack_into(">Q", image, 0x30000, (1 << 63) | 0x40000)
    struct.pack_into(">Q", image, 0x40000, l2_entry)
    struct.pack_into(">Q", image, 0x10000, 0x20000)
    path.write_bytes(bytes(image) + bomb)
    begin = time.monotonic()
    done = run("filesystems", "--all", "-a", path)
    assert time.monotonic() - begin < TIMEOUT / 2
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 4)


def test_output_of_a_failure_is_json_on_request(tmp_path: Path) -> None:
    done = run("inspect", "--json", "-a", make_missing(tmp_path))
    assert done.stdout == b""
    assert b'"code": "image.not-found"' in done.stderr
    assert b'"exit": 4' in done.stderr
