"""A qcow2 image held for us alone, while qemu-img changes what it holds beside the guest's data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import ImageUnsupportedError, SpaceError, ToolError
from imgtools.image.chain import resolve_disk
from imgtools.image.header import ImageHeader
from imgtools.image.inplace import mend_leaks, space_error, without_nodes
from imgtools.image.vet import vet
from imgtools.model.disks import DiskRequest, ImageLayer
from imgtools.nodes import Node, chain_node
from imgtools.workflow.held import held, refuse_running
from imgtools.workflow.images import private_folder
from imgtools.workflow.opening import files_of_layers, finish_interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The image, its format if stated, and whether it comes from a stranger."""

    image: Path
    format: str | None = None
    untrusted: bool = False


class Qcow2:
    """A qcow2 image that is held for us alone."""

    def __init__(self, layers: Sequence[ImageLayer], header: ImageHeader, folder: Path) -> None:
        self._layers, self.header, self._folder = layers, header, folder
        self.layer = layers[0]
        self.path = layers[0].path

    def do(self, change: Callable[[Node], None]) -> None:
        """Have ``change`` run qemu-img on the image's node.  Raises ToolError, SpaceError."""
        try:
            change(chain_node(self._layers, self._folder, writable=True))
        except ToolError as error:
            if space_error(error):
                raise SpaceError(
                    f"{self.path}: the storage is full; the present state is as it was",
                    hint="free some space and do it again",
                ) from error
            raise ToolError(f"{self.path}: {without_nodes(error.message)}") from error


@contextlib.contextmanager
def opened(place: Place, what: str) -> Iterator[Qcow2]:
    """The image; on its storage when the block ends.  ``what`` it is to hold, for the message.

    What a killed run left is set right first.  Raises ImageUnsupportedError for another format,
    InUseError, and what vetting raises.
    """
    finish_interrupted(place.image, untrusted=place.untrusted)
    refuse_running([place.image])
    request = DiskRequest(path=place.image, format=place.format)
    layers = resolve_disk(request, untrusted=place.untrusted).layers
    if layers[0].format != "qcow2":
        raise ImageUnsupportedError(
            f"{place.image}: a {layers[0].format} image holds no {what}",
            hint="only qcow2 does: imgtools convert -O qcow2",
        )
    with held(files_of_layers(layers[:1]), files_of_layers(layers[1:])) as holds:
        with private_folder() as folder:
            layers = resolve_disk(request, untrusted=place.untrusted).layers
            mended = mend_leaks(layers[0], folder)
            yield Qcow2(layers, vet(layers[0].path, "qcow2"), folder)
            if mended:
                # Behind a mended end of the file qemu 7.2 loses a cluster when it makes a snapshot.
                mend_leaks(layers[0], folder)
        for hold in holds:
            hold.sync()
