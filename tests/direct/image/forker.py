"""Run imgtools again and again, each time in a fork of this process, which has imported it all.

A line on stdin is the JSON list of a run's words; the answer is its exit status, or minus the
number of the signal that ended it.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import struct
import sys

import imgtools
from imgtools.cli.main import run

ROOT_AT = 4 * struct.calcsize("l")
ROOMS = ("imgtools.image.", "imgtools.workflow.", "imgtools.transaction.", "imgtools.cli.image.")


def main() -> None:
    """Serve until stdin ends."""
    for module in pkgutil.walk_packages(imgtools.__path__, "imgtools."):
        if module.name.startswith(ROOMS):
            importlib.import_module(module.name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            nowhere = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(nowhere, fd)
            _announce()
            code = 1
            try:
                code = run(json.loads(line))
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _announce() -> None:
    """Say who is to die with whatever process dies (struct page of crash.c)."""
    with open(os.environ["CRASH_PAGE"], "r+b") as stream:  # noqa: PTH123
        stream.seek(ROOT_AT)
        stream.write(struct.pack("l", os.getpid()))


if __name__ == "__main__":
    main()
