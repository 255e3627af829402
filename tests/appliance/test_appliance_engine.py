"""One real appliance over disks made to be awkward: names, chains, locks, journals, bad bytes."""

from __future__ import annotations

import hashlib
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imgtools.appliance import preflight
from imgtools.appliance.engine import ApplianceEngine
from imgtools.config import Config
from imgtools.errors import (
    GuestFileNotFoundError,
    GuestIsADirectoryError,
    GuestNotADirectoryError,
    GuestNotAFileError,
    GuestOperationError,
    GuestSymlinkLoopError,
    ImageError,
    ImageNotFoundError,
    UntrustedReferenceError,
)
from imgtools.model.disks import Disk, DiskRequest, ImageLayer

pytestmark = pytest.mark.appliance

SECRET = b"the host's secret\n"
FRESH = b"fresh from the journal\n".ljust(4096, b"\0")
BIG = hashlib.sha256(b"seed").digest() * (3 << 15)  # 3 MiB
ODD_NAME = "a,b=c:d e\nf"
QEMU = "qemu-system-x86_64"


def tool(*argv: str | Path, **options: object) -> bytes:
    return subprocess.run([str(a) for a in argv], check=True, capture_output=True, **options).stdout  # type: ignore[call-overload,no-any-return]


def disk_of(*layers: tuple[Path, str], block_size: int = 512) -> Disk:
    found = tuple(
        ImageLayer(path=path, format=kind, virtual_size=path.stat().st_size)
        for path, kind in layers
    )
    request = DiskRequest(path=layers[0][0], block_size=block_size)  # type: ignore[arg-type]
    return Disk(request=request, layers=found)


def make_ext4(folder: Path, name: str, files: dict[bytes, bytes], size: str = "24M") -> Path:
    source = folder / f"{name}.d"
    source.mkdir()
    for path, content in files.items():
        target = os.fsencode(source) + b"/" + path
        file = Path(os.fsdecode(target))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    image = folder / name
    tool("mkfs.ext4", "-q", "-F", "-d", source, image, size)
    return image


def trap(folder: Path) -> Path:
    """A raw disk whose first sector is a qcow2 header that names a host file."""
    secret = folder / "secret.txt"
    secret.write_bytes(SECRET.ljust(1 << 20, b"#"))
    image = folder / "trap.raw"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, image, "1M")
    with image.open("r+b") as stream:
        stream.truncate(16 << 20)
    return image


def odd_chain(folder: Path) -> tuple[Path, Path, Path]:
    """raw < qcow2 < qcow2, all with a name that every separator of qemu's options is in."""
    base = make_ext4(folder, f"base {ODD_NAME}", {b"who": b"chain"})
    middle, top = folder / f"middle {ODD_NAME}", folder / f"top {ODD_NAME}"
    for lower, kind, upper in ((base, "raw", middle), (middle, "qcow2", top)):
        spec = f'json:{{"driver":"{kind}","file":{{"driver":"file","filename":"{lower}"}}}}'
        spec = spec.replace("\n", "\\n")
        tool(
            "qemu-img",
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-F",
            kind,
            "-b",
            spec,
            f"{upper}",
            "24M",
        )
    # What the header says must not matter: the vetted chain does.
    tool("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", f"{top}")
    return base, middle, top


def needs_recovery(folder: Path) -> Path:
    image = make_ext4(folder, "dirty", {b"who": b"stale".ljust(4096, b"\0")}, "40M")
    block = tool("debugfs", "-R", "bmap /who 0", image).decode().strip()
    content = folder / "fresh"
    content.write_bytes(FRESH)
    commands = f"jo\njw -b {block} {content}\njc\n"
    tool("debugfs", "-w", "-f", "-", image, input=commands.encode())
    assert b"needs_recovery" in tool("dumpe2fs", "-h", image)
    return image


def start_guest(image: Path, image_format: str) -> subprocess.Popen[bytes]:
    """A paused guest that has the image open for writing, as libvirt would start one."""
    argv = [QEMU, "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "64", "-S"]
    argv += ["-drive", f"file={image},format={image_format},if=virtio", "-qmp", "stdio"]
    guest = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert guest.stdin is not None
    assert guest.stdout is not None
    guest.stdin.write(b'{"execute":"qmp_capabilities"}\n')
    guest.stdin.flush()
    greeting, answer = guest.stdout.readline(), guest.stdout.readline()
    assert b"QMP" in greeting, "the guest could not be started"
    assert b"return" in answer
    return guest


def end_guest(guest: subprocess.Popen[bytes]) -> None:
    guest.kill()
    guest.communicate()


@dataclass
class Opened:
    engine: ApplianceEngine
    folder: Path
    busy: Path
    before: dict[Path, str]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    folder = tmp_path_factory.mktemp("disks")
    base, middle, top = odd_chain(folder)
    names = make_ext4(
        folder,
        "names",
        {
            b"bad\xffname": b"bytes",
            b"new\nline": b"line",
            b"dir/deep": b"deep",
            b"big": BIG,
            **{b"many/%05d-%s" % (i, b"x" * 200): b"" for i in range(2500)},
        },
        "64M",
    )
    tool(
        "debugfs",
        "-w",
        "-f",
        "-",
        names,
        input=b"mknod fifo p\nmknod null c 1 3\n"
        b"symlink loop loop\nsymlink up ../../../../etc/passwd\nea_set dir user.key value\n",
    )
    served, busy, later = (
        make_ext4(folder, name, {b"who": name.encode()}) for name in ("served", "busy", "later")
    )
    large = folder / "4k"
    large.write_bytes(b"")
    os.truncate(large, 48 << 20)
    tool("mkfs.ext4", "-q", "-F", "-b", "4096", large)
    socket = folder / "nbd.sock"
    server = subprocess.Popen(
        ["qemu-nbd", "-r", "-t", "-f", "raw", "-e", "4", "-k", str(socket), str(served)]
    )
    guest = start_guest(busy, "raw")
    while not socket.exists():
        time.sleep(0.05)
    uri = f"nbd+unix:///?socket={socket}"
    disks = [
        disk_of((trap(folder), "raw")),
        disk_of((top, "qcow2"), (middle, "qcow2"), (base, "raw")),
        disk_of((names, "raw")),
        disk_of((needs_recovery(folder), "raw")),
        disk_of((busy, "raw")),
        disk_of((later, "raw")),
        disk_of((large, "raw"), block_size=4096),
        Disk(request=DiskRequest(uri=uri), uri=uri),
    ]
    files = [layer.path for disk in disks for layer in disk.layers]
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    engine = ApplianceEngine(disks, (), Config())
    try:
        engine.storage()
        yield Opened(engine, folder, later, before)
    finally:
        engine.close()
        end_guest(guest)
        server.terminate()
        server.wait()
    after = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert after == before, "an image was changed by reading it"


def read(opened: Opened, device: str, path: bytes = b"/who") -> bytes:
    with opened.engine.mount(device).open(path) as stream:
        return stream.read()


def test_a_raw_disk_never_becomes_qcow2_by_its_content(opened: Opened) -> None:
    assert opened.engine.storage().devices[0].size == 16 << 20, "the header's 1 MiB was believed"
    device = "/dev/disk/by-path/*-scsi-0:0:0:0"
    shell = opened.engine.appliance.shell
    assert shell(f"head -c 4 {device} | od -An -tx1").split() == [b"51", b"46", b"49", b"fb"]
    found = shell(f'head -c 2097152 {device} | grep -c "the host\'s secret"; exit 0')
    assert found.strip() == b"0"


def test_the_vetted_chain_is_read_and_not_the_one_in_the_header(opened: Opened) -> None:
    assert read(opened, "/dev/sdb") == b"chain"


def test_an_image_that_a_running_guest_writes_is_readable(opened: Opened) -> None:
    assert read(opened, "/dev/sde") == b"busy"


def test_a_guest_can_be_started_while_its_image_is_read(opened: Opened) -> None:
    tree = opened.engine.mount("/dev/sdf")
    guest = start_guest(opened.busy, "raw")
    try:
        with tree.open(b"/who") as stream:
            assert stream.read() == b"later"
    finally:
        end_guest(guest)


def test_a_journal_is_replayed_on_the_overlay(opened: Opened) -> None:
    assert read(opened, "/dev/sdd") == FRESH
    assert b"needs_recovery" in tool("dumpe2fs", "-h", opened.folder / "dirty")


def test_sectors_of_4096_bytes(opened: Opened) -> None:
    size = opened.engine.appliance.shell("blockdev --getss /dev/disk/by-path/*-scsi-0:0:6:0")
    assert size.strip() == b"4096"
    assert opened.engine.mount("/dev/sdg").statvfs().bsize == 4096


def test_nbd_over_a_socket(opened: Opened) -> None:
    assert read(opened, "/dev/sdh") == b"served"


def test_names_are_bytes(opened: Opened) -> None:
    tree = opened.engine.mount("/dev/sdc")
    kinds = {entry.name: entry.kind for entry in tree.scandir(b"/")}
    assert kinds[b"bad\xffname"] == "r"
    assert kinds[b"new\nline"] == "r"
    assert (kinds[b"fifo"], kinds[b"null"], kinds[b"loop"], kinds[b"dir"]) == ("f", "c", "l", "d")
    assert read(opened, "/dev/sdc", b"/bad\xffname") == b"bytes"
    assert tree.readlink(b"/up") == b"../../../../etc/passwd"
    assert tree.getxattrs(b"/dir") == {b"user.key": b"value"}
    assert tree.getxattrs(b"/big") == {}


def test_a_directory_larger_than_one_message(opened: Opened) -> None:
    tree = opened.engine.mount("/dev/sdc")
    names = [entry.name for entry in tree.scandir(b"/many")]
    assert len(names) == 2500
    stats = tree.lstat_many(b"/many", [*names, b"gone", b"not\xff"])
    assert stats[-2:] == [None, None]
    assert all(found is not None and found.size == 0 for found in stats[:-2])


def test_a_file_is_a_seekable_stream(opened: Opened) -> None:
    with opened.engine.mount("/dev/sdc").open(b"/big") as stream:
        assert stream.read() == BIG
        assert stream.seek(-7, os.SEEK_END) == len(BIG) - 7
        assert stream.read() == BIG[-7:]
        assert stream.read() == b""
        stream.seek(1 << 20)
        assert stream.read(5) == BIG[1 << 20 : (1 << 20) + 5]
        stream.seek(1 << 40)
        assert stream.read(1) == b""


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("open", b"/nope", GuestFileNotFoundError),
        ("lstat", b"/nope", GuestFileNotFoundError),
        ("lstat", b"/big/x", GuestNotADirectoryError),
        ("lstat", b"/" + b"n" * 300, GuestFileNotFoundError),
        ("lstat", b"/n" * 3000, GuestFileNotFoundError),
        ("open", b"/dir", GuestIsADirectoryError),
        ("open", b"/fifo", GuestNotAFileError),
        ("open", b"/null", GuestNotAFileError),
        ("open", b"/loop", GuestNotAFileError),
        ("scandir", b"/big", GuestNotADirectoryError),
        ("scandir", b"/loop", GuestSymlinkLoopError),
        ("readlink", b"/big", GuestOperationError),
        ("getxattrs", b"/nope", GuestFileNotFoundError),
        ("lstat", b"relative", GuestOperationError),
    ],
)
def test_errors_have_their_class(
    opened: Opened, method: str, path: bytes, error: type[GuestOperationError]
) -> None:
    with pytest.raises(error) as caught:
        getattr(opened.engine.mount("/dev/sdc"), method)(path)
    assert type(caught.value) is error
    assert "\n" not in caught.value.message


def test_what_cannot_be_mounted_says_so_and_ends_nothing(opened: Opened) -> None:
    with pytest.raises(GuestOperationError, match="/dev/sda: cannot be mounted"):
        opened.engine.mount("/dev/sda")
    assert read(opened, "/dev/sdb") == b"chain"


# --- what is refused before a launch ---------------------------------------------------------


def left_over(folder: Path) -> list[str]:
    return [
        path.name for path in folder.iterdir() if path.name.startswith(("imgtools-", "libguestfs"))
    ]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TMPDIR of the test's own; the built appliance stays where it is."""
    monkeypatch.setenv("LIBGUESTFS_CACHEDIR", str(preflight.places().cache))
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def fails(disk: Disk, error: type[Exception], temporary: Path) -> str:
    engine = ApplianceEngine([disk])
    with pytest.raises(error) as caught:
        engine.storage()
    engine.close()
    assert left_over(temporary) == []
    return str(caught.value)


def test_a_missing_image_is_found_before_a_launch(tmp_path: Path, temporary: Path) -> None:
    layer = ImageLayer(path=tmp_path / "nope", format="raw", virtual_size=1)
    disk = Disk(request=DiskRequest(path=layer.path), layers=(layer,))
    assert "no such file" in fails(disk, ImageNotFoundError, temporary)


def test_a_damaged_image_is_one_line_before_a_launch(tmp_path: Path, temporary: Path) -> None:
    image = tmp_path / "damaged.qcow2"
    image.write_bytes(b"QFI\xfb" + struct.pack(">I", 3) + b"\xff" * 500)
    message = fails(disk_of((image, "qcow2")), ImageError, temporary)
    assert "damaged.qcow2" in message
    assert "json:" not in message


def test_a_remote_qcow2_may_not_name_a_file_of_this_host(tmp_path: Path, temporary: Path) -> None:
    image, socket = tmp_path / "evil.qcow2", tmp_path / "s"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", image, "1M")
    server = subprocess.Popen(["qemu-nbd", "-r", "-t", "-f", "raw", "-k", str(socket), str(image)])
    try:
        while not socket.exists():
            time.sleep(0.05)
        uri = f"nbd+unix:///?socket={socket}"
        disk = Disk(request=DiskRequest(uri=uri, format="qcow2"), uri=uri)
        fails(disk, UntrustedReferenceError, temporary)
    finally:
        server.terminate()
        server.wait()


# --- signals ---------------------------------------------------------------------------------

PROGRAM = """
import signal, sys
from pathlib import Path
from imgtools.appliance.engine import ApplianceEngine
from imgtools.cli.main import _on_terminate
from imgtools.model.disks import Disk, DiskRequest, ImageLayer
signal.signal(signal.SIGTERM, _on_terminate)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell puts behind
path = Path(sys.argv[1])
layer = ImageLayer(path=path, format="raw", virtual_size=path.stat().st_size)
engine = ApplianceEngine([Disk(request=DiskRequest(path=path), layers=(layer,))])
try:
    print("launching", flush=True)
    engine.appliance
    print("working", flush=True)
    engine.appliance.shell("sleep 600")
finally:
    engine.close()
"""


def processes_naming(word: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in text:
            found.append(text)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["launching", "working"])
def test_a_signal_leaves_nothing_behind(
    moment: str, number: signal.Signals, tmp_path: Path, temporary: Path
) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(image)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        while child.stdout.readline().decode().strip() != moment:
            assert child.poll() is None
        while moment == "launching" and not [
            p for p in processes_naming(str(temporary)) if QEMU in p
        ]:
            assert child.poll() is None
            time.sleep(0.05)
        child.send_signal(number)
        child.communicate(timeout=60)
    assert child.returncode != 0
    assert left_over(temporary) == []
    assert processes_naming(str(temporary)) == []


def test_a_launch_that_takes_too_long_is_ended(tmp_path: Path, temporary: Path) -> None:
    from imgtools.errors import ApplianceError

    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    engine = ApplianceEngine([disk_of((image, "raw"))], (), Config(timeout=1, instant=False))
    with pytest.raises(ApplianceError, match="within 1 s"):
        engine.storage()
    engine.close()
    assert left_over(temporary) == []
    assert processes_naming(str(temporary)) == []
