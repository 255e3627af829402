"""A small ext4 guest made on the spot, for what a command must survive in names and files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SPARSE_SIZE = (4 << 30) + 12345
TAIL = b"the end"
ODD_NAMES = (b"new\nline", b"\xff\xfe bad utf-8", b"\x1b[2Jescape", b'space, comma "quote"')


def write_guest(root: Path) -> None:
    """Just enough of an operating system, and a folder of troublesome files."""
    for folder in ("bin", "etc", "home", "usr", "root", "odd", "odd/empty", "deep/er/est"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/os-release").write_text("ID=debian\nVERSION_ID=12\n", encoding="utf-8")
    (root / "etc/fstab").write_text("/dev/sda / ext4 defaults 0 1\n", encoding="utf-8")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n", encoding="utf-8")
    (root / "etc/hostname").write_bytes(b"crafted\n")
    (root / "etc/empty").touch()
    (root / "etc/escape").symlink_to("../../../../../../etc/passwd")
    (root / "etc/host-passwd").symlink_to("/etc/passwd")
    (root / "etc/loop").symlink_to("loop")
    (root / "etc/link").symlink_to("/etc/hostname")
    (root / "etc/etc").symlink_to("/etc")
    os.mkfifo(root / "etc/fifo")
    for name in ODD_NAMES:
        Path(os.fsdecode(bytes(root / "odd") + b"/" + name)).write_bytes(name)
    (root / "binary").write_bytes(bytes(range(256)) * 5000)
    with (root / "sparse").open("wb") as stream:
        stream.truncate(SPARSE_SIZE - len(TAIL))
        stream.seek(0, os.SEEK_END)
        stream.write(TAIL)


def make_ext4(folder: Path, image: Path, size: int = 64 << 20) -> Path:
    """A raw image holding one ext4 filesystem with the content of ``folder``."""
    with image.open("wb") as stream:
        stream.truncate(size)
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d", folder, image],
        check=True,
    )
    return image
