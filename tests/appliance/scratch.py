"""Scratch copies of guests to change, and readers that share no code with what changed them."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.cli import Result, imgtools
from tests.oracle import ENVIRONMENT

PARTITION = 1 << 20  # where the filesystem of the fixture "changing" begins


def overlay_of(image: Path, path: Path) -> Path:
    """A qcow2 overlay, as a clone of a guest is often made."""
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, path]
    subprocess.run(command, check=True)
    return path


def copy_of(image: Path, path: Path) -> Path:
    """A copy that shares or skips what it can."""
    subprocess.run(["cp", "--reflink=auto", "--sparse=always", image, path], check=True)
    return path


def state(image: Path) -> tuple[str, int, list[str]]:
    """The image's content and time, and what lies beside it: all that may not change."""
    with image.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return digest, image.stat().st_mtime_ns, sorted(path.name for path in image.parent.iterdir())


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file as e2fsprogs's debugfs sees it."""

    inode: int
    kind: str
    mode: int
    owner: tuple[int, int]
    links: int
    attributes: tuple[str, ...]
    mtime: int


def debugfs(image: Path, request: str) -> bytes:
    """The answer of debugfs(8) about the filesystem of the fixture "changing"."""
    command = ["debugfs", "-R", request, f"{image}?offset={PARTITION}"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def found(image: Path, path: str) -> Found:
    """One file, links not followed."""
    text = debugfs(image, f'stat "{path}"').decode()
    head = re.search(r"Inode: (\d+)\s+Type: (.+?)\s+Mode:\s+(\d+)", text)
    assert head, f"{path}: {text}"
    owner = re.search(r"User:\s+(\d+)\s+Group:\s+(\d+)", text)
    links = re.search(r"^Links: (\d+)", text, re.MULTILINE)
    mtime = re.search(r"^ mtime: 0x([0-9a-f]+)", text, re.MULTILINE)
    assert owner
    assert links
    assert mtime
    attributes = re.findall(r"^  (\w+\.\S+ \(\d+\).*)$", text, re.MULTILINE)
    return Found(
        inode=int(head[1]),
        kind=head[2],
        mode=int(head[3], 8),
        owner=(int(owner[1]), int(owner[2])),
        links=int(links[1]),
        attributes=tuple(sorted(attributes)),
        mtime=int(mtime[1], 16),
    )


def content(image: Path, path: str) -> bytes:
    """A file's content, links not followed."""
    return debugfs(image, f'cat "{path}"')


def is_there(image: Path, path: str) -> bool:
    """Whether the name exists."""
    command = ["debugfs", "-R", f'stat "{path}"', f"{image}?offset={PARTITION}"]
    done = subprocess.run(command, check=True, capture_output=True)
    return b"File not found" not in done.stderr


def assert_sound(image: Path) -> None:
    """e2fsck finds nothing to mend in the fixture "changing"."""
    command = ["e2fsck", "-fn", f"{image}?offset={PARTITION}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def read(image: Path, path: str) -> bytes:
    """A file's content, on the direct engine in a new process."""
    done = imgtools("cat", "--engine", "direct", "-a", image, path)
    assert done.code == 0, done.stderr
    return done.stdout


def members(image: Path, folder: str) -> dict[str, tarfile.TarInfo]:
    """Everything below a folder with all attributes, on the direct engine in a new process."""
    words = ("tar-out", "--engine", "direct", "--xattrs", "--acls", "--selinux")
    done = imgtools(*words, "-a", image, folder, "-")
    assert (done.code, done.stderr) == (0, "")
    with tarfile.open(fileobj=io.BytesIO(done.stdout), errors="surrogateescape") as tar:
        return {one.name: one for one in tar}


def stock(*words: str | Path) -> bytes:
    """What a virt-* tool prints of a scratch copy (30 s without KVM, and nothing to keep)."""
    done = subprocess.run(
        words, check=False, capture_output=True, env={**os.environ, **ENVIRONMENT}
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def change(*words: str | Path, stdin: bytes = b"", **environment: str) -> Result:
    """A writing command that must succeed and say nothing on stderr."""
    done = imgtools(*words, stdin=stdin, **environment)
    assert (done.code, done.stderr) == (0, ""), done.stdout
    return done


class Launches:
    """Counts the appliances that a command starts, by a hypervisor of our own.

    Only a stock launch (slow) takes the hypervisor that the user names.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "launches"
        program = folder / "hypervisor"
        program.write_text(
            f'#!/bin/sh\ncase " $* " in *" -kernel "*) echo launch >> {self._log};; esac\n'
            'exec qemu-system-x86_64 "$@"\n'
        )
        program.chmod(0o755)
        self.environment = {"IMGTOOLS_INSTANT": "0", "LIBGUESTFS_HV": str(program)}

    def count(self) -> int:
        """Launches so far."""
        return len(self._log.read_text().splitlines()) if self._log.exists() else 0
