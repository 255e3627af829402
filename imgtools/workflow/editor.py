"""A host copy of a guest's file in the user's own editor."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from pathlib import Path

from imgtools.errors import ImgtoolsError, UsageError
from imgtools.guest.editing.lines import MAX_EDIT
from imgtools.process import run_on_terminal

DEFAULT = ("sensible-editor", "vi", "nano")


def edit_in_editor(path: bytes, content: bytes) -> bytes:
    """What the user makes of ``content`` in ``$VISUAL``, ``$EDITOR`` or a usual editor.

    The copy is readable by the user alone and goes away.  Raises ImgtoolsError when the editor
    fails (nothing is changed then), MissingToolError, UsageError for a variable that is no command.
    """
    with tempfile.TemporaryDirectory(prefix="imgtools-edit-") as folder:
        # The name tells the editor how to highlight; what it may hold is ours to say.
        last = path.rpartition(b"/")[2].decode("ascii", errors="replace")
        copy = Path(folder) / (re.sub(r"[^\w.+-]", "_", last)[-100:].lstrip("-") or "file")
        copy.write_bytes(content)
        status = run_on_terminal([*_editor(), str(copy)])
        if status != 0:
            raise ImgtoolsError(
                f"the editor ended with status {status}: nothing was changed",
                hint="VISUAL or EDITOR names the editor",
            )
        if copy.stat().st_size > MAX_EDIT:
            raise ImgtoolsError(f"the edited file is larger than {MAX_EDIT >> 20} MiB")
        return copy.read_bytes()


def _editor() -> list[str]:
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not named:
        import shutil

        return [next((name for name in DEFAULT if shutil.which(name)), DEFAULT[1])]
    try:
        words = shlex.split(named)
    except ValueError as error:
        raise UsageError(f"EDITOR={named}: {error}") from None
    if not words:
        raise UsageError("EDITOR names no program")
    return words
