"""imgtools is killed alone: its qemu-img goes on, and nobody else gets at the image meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.appliance.kills import children_of, wait_gone
from tests.cli import PROGRAM
from tests.direct.image.chains import MIB, check, make, raw, write
from tests.direct.image.crashes import said
from tests.direct.image.disks import content, qemu_img

pytestmark = pytest.mark.direct

# Stands for qemu-img: before it does $VERB it says so, and waits.
WAITING = """#!/bin/bash
if [ "$1" = "$VERB" ]; then
    : > "$BEGUN"
    while [ ! -e "$GO" ]; do sleep 0.05; done
fi
exec "$REAL" "$@"
"""


@pytest.mark.parametrize("verb", ["rebase", "commit", "snapshot", "resize"])
def test_the_image_is_held_until_qemu_img_has_ended(tmp_path: Path, verb: str) -> None:
    raw(tmp_path / "base.img", 4 * MIB, (1, 0, MIB))
    image = make(tmp_path / "o.qcow2", 4 * MIB, backing="base.img", image_format="raw")
    write(image, (2, MIB, MIB))
    if verb == "snapshot":
        qemu_img("snapshot", "-c", "first", image)
    before = content(image)
    words = {
        "rebase": ["rebase", "--flatten", image],
        "commit": ["image", "commit", image],
        "snapshot": ["snapshot", "create", image, "second"],
        "resize": ["image", "resize", image, "8M"],
    }[verb]
    shim, begun, go = tmp_path / "bin" / "qemu-img", tmp_path / "begun", tmp_path / "go"
    shim.parent.mkdir()
    shim.write_text(WAITING)
    shim.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "REAL": shutil.which("qemu-img") or "",
        "VERB": verb,
        "BEGUN": str(begun),
        "GO": str(go),
    }
    with subprocess.Popen(
        [PROGRAM, *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        deadline = time.monotonic() + 60
        while not begun.exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (worker,) = children_of(child.pid)
        child.kill()
        assert child.wait() == -signal.SIGKILL
    try:
        for other in (words, ["image", "write", "--from", tmp_path / "base.img", image, "0"]):
            code, text = said(*other)
            assert (code, text.count("\n")) == (8, 1), text
            assert f"process {worker}" in text
        # Nor does a guest start.
        drive = ["qemu-io", "-f", "qcow2", "-c", "write 0 512", image]
        done = subprocess.run(drive, capture_output=True, text=True, check=False)
        assert 'Failed to get "write" lock' in done.stderr + done.stdout
    finally:
        go.touch()
    assert wait_gone(worker)
    assert said(*words)[0] in (0, 8)  # a second snapshot of that name is refused, say
    assert said("recover", image)[0] == 0
    assert check(image) == 0
    assert content(image) == before or verb == "resize"
