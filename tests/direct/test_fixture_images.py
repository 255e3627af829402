"""The derived images really hold what their recipes say, by qemu-img's word."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import fixtures

pytestmark = pytest.mark.direct

LATER_STATE = {"qcow2-chain": 3, "qcow2-on-raw": 2, "qcow2-snapshot": 2}
QEMU_NAME = {".vhd": "vpc", ".qcow2": "qcow2", ".raw": "raw"}


@pytest.mark.parametrize("name", fixtures.tagged("format"))
def test_every_format_holds_the_same_disk(name: str, image: Callable[[str], Path]) -> None:
    path = image(name)
    base = fixtures.folder("format-base") / f"state-{LATER_STATE.get(name, 1)}.raw"
    form = QEMU_NAME.get(path.suffix, path.suffix[1:])
    command = ["qemu-img", "compare", "-f", "raw", "-F", form, base, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=path.parent)
    assert (done.returncode, done.stdout.strip()) == (0, "Images are identical.")


def test_the_chain_names_its_layers_relative_to_itself(image: Callable[[str], Path]) -> None:
    top = image("qcow2-chain").read_bytes()[:4096]
    assert b"layers/middle.qcow2" in top
    assert b"/layers" not in top
