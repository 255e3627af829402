"""What users typed in bash."""

from __future__ import annotations

from imgtools.api import Operation, remove_paths

operation = Operation(
    name="bash-history",
    heading="Remove the command history of bash",
    description="Every account's .bash_history, in the home that /etc/passwd names.",
    plan=lambda guest, _: remove_paths(guest, guest.in_homes(".bash_history")),
)
