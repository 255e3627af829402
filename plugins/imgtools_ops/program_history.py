"""What users typed in other programs than shells."""

from __future__ import annotations

from imgtools.api import Operation, remove_paths

FILES = (
    ".ash_history",
    ".gdb_history",
    ".irb_history",
    ".lesshst",
    ".local/state/lesshst",
    ".local/state/nvim/shada/*",
    ".mariadb_history",
    ".mongodb/mongosh/*_history",
    ".mysql_history",
    ".node_repl_history",
    ".php_history",
    ".psql_history",
    ".python_history",
    ".rediscli_history",
    ".sh_history",
    ".sqlite_history",
    ".viminfo",
    ".wget-hsts",
)

operation = Operation(
    name="program-history",
    heading="Remove the histories of Python, databases, editors and pagers",
    description="In every account's home: " + ", ".join(FILES) + ".",
    plan=lambda guest, _: remove_paths(guest, guest.in_homes(*FILES)),
)
