"""Steps that change what a guest boots with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from imgtools.errors import ImgtoolsError
from imgtools.guest.linux.initramfs import Text, rewritten, scan
from imgtools.guest.steps.base import CHUNK, Done
from imgtools.guest.tree import GuestTree, show
from imgtools.guest.writing import GuestFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteInitramfs:
    """Replace text of an initramfs, keeping its length (see `linux.initramfs`)."""

    path: bytes
    text: Text

    def idle(self, tree: GuestTree) -> bool:
        """True if nothing in it names the text.  Raises what `scan` raises."""
        with tree.open(self.path) as stream:
            return not any(part.found for part in scan(stream, self.text))

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Rewrite it in place, by way of a file of the host: it is read while it is written."""
        try:
            with tempfile.TemporaryFile() as new:
                with guest.open(self.path) as stream:
                    parts = scan(stream, self.text)
                    if not any(part.found for part in parts):
                        return []
                    for piece in rewritten(stream, parts, self.text):
                        new.write(piece)
                new.seek(0)
                guest.create(self.path, _pieces(new))
        except OSError as error:
            raise ImgtoolsError(
                f"{show(self.path)}: no temporary copy can be written: {error.strerror}",
                hint="set TMPDIR to a folder with more space",
            ) from error
        return [Done(verb="edited", path=self.path)]


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(CHUNK):
        yield piece
