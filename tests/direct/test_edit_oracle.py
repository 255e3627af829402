"""``-e`` against perl(1), and symbolic modes against chmod(1)."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from imgtools.guest.owners import new_mode
from tests.unit.guest.expressions import PERL

pytestmark = pytest.mark.direct
MARK = b"\x01\x02END\x03\n"


@pytest.mark.skipif(shutil.which("perl") is None, reason="perl is not installed")
def test_perl_makes_the_same_of_every_form() -> None:
    """The loop of virt-edit (perl_edit.ml), once for each form."""
    script = "no warnings; our ($_, $lineno, $.);\n"
    for expression, before, _ in PERL:
        text = before.hex()
        script += (
            f"{{ my @lines = split /(?<=\\n)/, pack('H*', '{text}'); my $lineno = 0;\n"
            f"for (@lines) {{ $lineno++; local $. = $lineno; {expression}\n;\n print; }}\n"
            'print "\\x01\\x02END\\x03\\n"; }\n'
        )
    done = subprocess.run(
        ["perl", "-e", script], capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    assert done.returncode == 0, done.stderr.decode()
    answers = done.stdout.split(MARK)[:-1]
    assert len(answers) == len(PERL)
    for (expression, before, after), answer in zip(PERL, answers, strict=True):
        assert answer == after, (expression, before)


def test_chmod_makes_the_same_of_every_mode(tmp_path: Path) -> None:
    chance = random.Random(7)
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    begin = os.umask(0)
    try:
        for _ in range(300):
            path = chance.choice([file, folder])
            path.chmod(chance.randrange(0o10000))
            before = path.stat().st_mode
            text = ",".join(_clause(chance) for _ in range(chance.randint(1, 3)))
            subprocess.run(["chmod", "--", text, path], check=True)
            found = stat.S_IMODE(path.stat().st_mode)
            assert f"{new_mode(text, before):04o}" == f"{found:04o}", (text, oct(before))
    finally:
        os.umask(begin)


def _clause(chance: random.Random) -> str:
    who = "".join(chance.choices("ugoa", k=chance.randint(0, 3)))
    actions = ""
    for _ in range(chance.randint(1, 2)):
        what = chance.choice(["", "u", "g", "o", *["".join(chance.choices("rwxXst", k=3))] * 4])
        actions += chance.choice("-+=") + what
    return who + actions
