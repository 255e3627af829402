"""libguestfs joins a command in a buffer that it overruns for some lengths of its qemu's path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgtools.appliance.instant.short import LONGEST, short_name

pytestmark = pytest.mark.appliance

LENGTHS = range(60, 180, 8)

# A launch that gets as far as the launch itself, where malloc
# looks at its own marks.
ASK = """
import sys
from pathlib import Path
import guestfs
from imgtools.appliance.instant.short import short_name

for name in sys.argv[2:]:
    handle = guestfs.GuestFS(python_return_dict=True, close_on_exit=False)
    handle.set_backend("direct")
    handle.set_path(sys.argv[1])
    handle.set_event_callback(lambda *_: None, 0x10 | 0x20 | 0x200)
    handle.add_drive_scratch(1 << 20)
    with short_name(Path(name)) as program:
        handle.set_hv(str(program))
        try:
            handle.launch()
        except RuntimeError:
            pass
    handle.close()
"""


def of_length(folder: Path, length: int) -> Path:
    program = folder / ("x" * (length - len(str(folder)) - 6)) / "qemu"
    assert len(str(program)) == length
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        '#!/bin/sh\ncase "$*" in\n*-append*) exit 1 ;;\n'
        f'*qmp*) echo "$0" >>{folder}/asked ;;\nesac\n'
        # libguestfs knows a program that it has asked by its size and time.
        f'exec qemu-system-x86_64 "$@"\n#{"x" * length}\n',
        encoding="utf-8",
    )
    program.chmod(0o700)
    return program


def test_no_length_of_a_path_overruns_libguestfs(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("a")
    for part in ("kernel", "initrd", "README.fixed"):
        (folder / part).touch()
    subprocess.run(["mke2fs", "-q", folder / "root", "1M"], check=True)
    programs = [of_length(folder, length) for length in LENGTHS]
    result = subprocess.run(
        [sys.executable, "-c", ASK, folder, *programs],
        env={**os.environ, "LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    asked = set((folder / "asked").read_text(encoding="utf-8").splitlines())
    assert asked == {str(program) for program in programs}


def test_a_long_path_has_a_short_name_for_a_while(tmp_path: Path) -> None:
    program = tmp_path / ("it's " + "x" * 100) / "qemu"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    with short_name(program) as name:
        assert len(str(name)) <= LONGEST
        said = subprocess.run([name, "a b", "c"], capture_output=True, text=True, check=True)
    assert said.stdout == "a b c\n"
    assert not name.parent.exists()


def test_a_short_path_is_its_own_name() -> None:
    with short_name(Path("/usr/bin/qemu-system-x86_64")) as name:
        assert name == Path("/usr/bin/qemu-system-x86_64")
