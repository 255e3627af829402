"""Single changes of a guest's files, as records: what `edit`, `write`, `rm` … and `apply` run.

A step says what it changed, and nothing when the guest was so already.  `Step.idle` may find that
out on a read-only tree before anything is launched; it is asked about the first state only, so
of several steps all must be idle.
"""

from __future__ import annotations

from imgtools.guest.steps.base import Done, Nothing, Step, Verb
from imgtools.guest.steps.boot import RewriteInitramfs
from imgtools.guest.steps.content import AppendLine, Content, Edit, Rewrite, Truncate, Write
from imgtools.guest.steps.devices import ClearSwap, ClearSwapFile, RenewLvm, SetUuid
from imgtools.guest.steps.names import Link, Mkdir, Move, Remove, Touch
from imgtools.guest.steps.permissions import Chmod, Chown

__all__ = [
    "AppendLine",
    "Chmod",
    "Chown",
    "ClearSwap",
    "ClearSwapFile",
    "Content",
    "Done",
    "Edit",
    "Link",
    "Mkdir",
    "Move",
    "Nothing",
    "Remove",
    "RenewLvm",
    "Rewrite",
    "RewriteInitramfs",
    "SetUuid",
    "Step",
    "Touch",
    "Truncate",
    "Verb",
    "Write",
]
