"""What a process of the command line loads before it has something to read."""

from __future__ import annotations

import subprocess
import sys

import pytest

from imgtools.cli.main import COMMANDS

pytestmark = pytest.mark.direct

HEAVY = ("guestfs", "libvirt", "dissect", "rich", "lxml", "hivex", "msgspec")


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in sorted(COMMANDS))])
def test_help_loads_no_binding_and_no_heavy_library(words: list[str]) -> None:
    script = (
        f"import sys; from imgtools.cli.main import run; code = run({words!r});"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "0 []"
    assert "Examples:" in done.stdout


def test_the_groups_help_lists_every_command() -> None:
    script = "from imgtools.cli.main import run; run(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


def test_the_end_does_not_wait_for_a_thread_that_is_stuck() -> None:
    script = """
import threading, time, weakref
from imgtools.cli import main

class Folder: pass

def run(argv):
    global folder
    folder = Folder()
    weakref.finalize(folder, print, "cleaned up")
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    print("said")
    return 6

main.run = run
main.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (6, "said\ncleaned up\n", "")
