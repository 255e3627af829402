"""A real libvirtd, and domains over built images."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

URI = "qemu:///system"


def virsh(*words: str, check: bool = True) -> str:
    """Run virsh on the system's connection and return what it printed."""
    done = subprocess.run(
        ["virsh", "-q", "-c", URI, *words], capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, f"virsh {words}: {done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="session")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a libvirtd that runs, started (and ended) here when none does."""
    started = []
    for daemon in ("virtlogd", "libvirtd"):
        if subprocess.run(["pgrep", "-x", daemon], capture_output=True, check=False).returncode:
            pid_file = tmp_path_factory.mktemp(daemon) / "pid"
            subprocess.run([daemon, "-d", "-p", pid_file], check=True)
            started.append(pid_file)
    deadline = time.monotonic() + 60
    while subprocess.run(["virsh", "-c", URI, "uri"], capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, "libvirtd does not answer"
        time.sleep(0.2)
    yield URI
    for pid_file in reversed(started):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class DefinedDomain:
    """A domain that the test defined."""

    name: str
    uuid: str
    disk: Path

    def start_paused(self) -> None:
        """Start it with its processor stopped: qemu runs and holds the image's locks."""
        virsh("start", "--paused", self.name)


Define = Callable[..., DefinedDomain]


@pytest.fixture
def define(libvirtd: str) -> Iterator[Define]:
    """``define(name, disk, format)`` makes a domain, which is gone after the test."""
    names = []

    def make(name: str, disk: Path, image_format: str = "qcow2", source: str = "") -> DefinedDomain:
        identity = str(uuid.uuid4())
        source = source or f"<source file='{disk}'/>"
        kind = "volume" if "pool=" in source else "file"
        virsh("define", str(_written(disk.parent / f"{name}.xml", f"""
            <domain type='qemu'>
              <name>{name}</name><uuid>{identity}</uuid><memory unit='MiB'>64</memory>
              <os><type arch='x86_64'>hvm</type></os>
              <devices>
                <disk type='{kind}' device='disk'>
                  <driver name='qemu' type='{image_format}'/>{source}
                  <target dev='vda' bus='virtio'/>
                </disk>
              </devices>
              <seclabel type='static' model='dac' relabel='no'><label>+0:+0</label></seclabel>
            </domain>
        """)))  # fmt: skip
        names.append(name)
        return DefinedDomain(name, identity, disk)

    yield make
    for name in names:
        virsh("destroy", name, check=False)
        virsh("undefine", name, check=False)


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def overlay(tmp_path: Path) -> Callable[[Path], Path]:
    """``overlay(image)``: a qcow2 of its own on top of a built image."""

    def make(base: Path) -> Path:
        path = tmp_path / f"{base.stem}-overlay.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, path], check=True
        )
        return path

    return make
