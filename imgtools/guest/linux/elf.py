"""The guest's architecture, from the ELF header of a program it surely has.

Names are those libguestfs's ``file_architecture`` makes of what file(1) prints.
Format: elf(5); machine numbers: <elf.h>.
"""

from __future__ import annotations

from imgtools.guest.linux.findings import Findings
from imgtools.guest.tree import GuestTree

BINARIES = (b"/bin/bash", b"/bin/ls", b"/bin/echo", b"/bin/rm", b"/bin/sh")

_MACHINES = {
    2: "sparc",
    3: "i386",
    6: "i386",
    20: "ppc",
    40: "arm",
    43: "sparc64",
    50: "ia64",
    62: "x86_64",
    183: "aarch64",
}


def find_arch(tree: GuestTree, findings: Findings) -> str:
    """The architecture of the first binary that tells; empty if none does."""
    for path in BINARIES:
        if not findings.attempt("arch", lambda path=path: tree.is_file(path), default=False):  # type: ignore[misc]
            continue
        arch = findings.attempt("arch", lambda path=path: _arch_of(tree, path), "")  # type: ignore[misc]
        if arch:
            return arch
    return ""


def _arch_of(tree: GuestTree, path: bytes) -> str:
    with tree.open(path) as stream:
        return elf_arch(stream.read(20))


def elf_arch(header: bytes) -> str:
    """The architecture an ELF header (20 bytes) names; empty if it is none or unknown."""
    if len(header) < 20 or header[:4] != b"\x7fELF" or header[5] not in (1, 2):
        return ""
    little = header[5] == 1
    bits = {1: 32, 2: 64}.get(header[4], 0)
    machine = int.from_bytes(header[18:20], "little" if little else "big")
    if machine == 21:
        return "ppc64le" if little else "ppc64"
    if machine == 22:
        return "s390x" if bits == 64 else "s390"
    if machine == 243:
        return f"riscv{bits}"
    if machine == 258:
        return f"loongarch{bits}"
    if machine == 8:
        return f"mips{'64' if bits == 64 else ''}{'el' if little else ''}"
    return _MACHINES.get(machine, "")
