"""What an operation of `imgtools sysprep` is made of: the one module that a plugin imports.

An operation looks at a guest that is mounted read-only and says what it would do, as `Action`
records; imgtools does it, in one transaction with all the other operations, or only lists it.  The
names here do not change within a major version.  docs/plugins.md teaches it.
"""

from __future__ import annotations

from imgtools.api.devices import clear_swap, clear_swap_file, renew_lvm, set_uuid
from imgtools.api.files import (
    empty,
    empty_paths,
    link,
    move,
    note,
    remove,
    remove_files,
    remove_lines,
    remove_paths,
    rewrite,
    touch,
    write,
)
from imgtools.api.guest import Guest
from imgtools.api.initramfs import find_in_initramfs, rewrite_initramfs
from imgtools.api.operation import Operation
from imgtools.api.programs import customize, customize_options, run_command, run_on_host
from imgtools.api.records import Action, Home, Option, Values
from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.linux.grub import core_text
from imgtools.guest.linux.initramfs import Text
from imgtools.guest.linux.release import Release

__all__ = [
    "Action",
    "Guest",
    "GuestOperationError",
    "Home",
    "Operation",
    "Option",
    "Release",
    "Text",
    "UsageError",
    "Values",
    "clear_swap",
    "clear_swap_file",
    "core_text",
    "customize",
    "customize_options",
    "empty",
    "empty_paths",
    "find_in_initramfs",
    "link",
    "move",
    "note",
    "remove",
    "remove_files",
    "remove_lines",
    "remove_paths",
    "renew_lvm",
    "rewrite",
    "rewrite_initramfs",
    "run_command",
    "run_on_host",
    "set_uuid",
    "touch",
    "write",
]
