"""Whatever else the guest is to have: the options of `imgtools customize`."""

from __future__ import annotations

from imgtools.api import Operation, customize, customize_options

operation = Operation(
    name="customize",
    heading="Customize the guest",
    description="The options of imgtools customize, in the order of the command line: files, "
    "programs and packages, passwords, keys, names. It runs after all that is removed, but for "
    "what its programs make that clones must not share (the machine's ID, SSH host keys, seeds) "
    "and what they leave behind (caches, logs): that goes after it.",
    # Operations above this are planned again once programs of the guest have run.
    order=90,
    options=customize_options(),
    plan=customize,
)
