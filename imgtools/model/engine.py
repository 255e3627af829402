"""A way into a set of disks, and the machine that it may run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from imgtools.model.files import FileTree
from imgtools.model.storage import Storage

EngineName = Literal["direct", "appliance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What an appliance has beyond its disks: a network card, and how many processors."""

    network: bool = False
    processors: int = 1


PLAIN = Machine()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program of the guest ended.

    ``status`` is its exit status, 128 + N after signal N; ``output`` the end of stdout and stderr.
    """

    status: int
    output: bytes = field(repr=False)


class Engine(Protocol):
    """A way into a set of disks.  Close it when done; it is not thread-safe."""

    @property
    def name(self) -> EngineName:
        """``direct`` or ``appliance``."""

    def storage(self) -> Storage:
        """Everything on the disks (cached; opens LUKS volumes whose keys were given)."""

    def mount(self, device: str) -> FileTree:
        """The file tree of a mountable, by the name `storage` gave it."""

    def swap_is_clear(self, device: str) -> bool:
        """True if the swap space on ``device`` has no content."""

    def close(self) -> None:
        """Release everything.  Idempotent."""
