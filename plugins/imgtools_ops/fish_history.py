"""What users typed in fish."""

from __future__ import annotations

from imgtools.api import Operation, remove_paths

operation = Operation(
    name="fish-history",
    heading="Remove the command history of fish",
    description="Every account's fish_history.",
    plan=lambda guest, _: remove_paths(
        guest, guest.in_homes(".local/share/fish/*_history", ".config/fish/fish_history")
    ),
)
