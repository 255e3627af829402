"""What users typed in zsh."""

from __future__ import annotations

from imgtools.api import Operation, remove_paths

operation = Operation(
    name="zsh-history",
    heading="Remove the command history of zsh",
    description="Every account's .zsh_history, in the home that /etc/passwd names.",
    plan=lambda guest, _: remove_paths(
        guest, guest.in_homes(".zsh_history", ".zhistory", ".histfile")
    ),
)
