"""Store in an overlay of which format its parent is, where that is missing.

The name of the parent stays byte for byte, and so does what the guest sees: without a stored format
qemu (and we) go by the parent's header, which is what is stored now.  From then on nobody probes.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from imgtools import nodes
from imgtools.errors import ImageChainError, InUseError
from imgtools.image.hold import holding
from imgtools.image.job import run_job
from imgtools.image.vet import vet
from imgtools.model.disks import ImageLayer


def store_backing_format(path: Path, name: bytes, backing_format: str) -> None:
    """Store ``backing_format`` in the qcow2 overlay ``path``, which names ``name`` as its parent.

    The times of the file stay as they were, since the guest's data does: overlays on this one are
    not to look as if it had been written to.  Raises InUseError, ReadOnlyError, ToolError,
    ImageChainError when the image is not as expected.
    """
    with holding([(path, True)]) as (hold,), tempfile.TemporaryDirectory() as folder:
        header = vet(path, "qcow2")
        if header.backing_file != name or header.backing_format is not None or header.fatal:
            raise ImageChainError(f"{path}: has just been changed by another program")
        before = path.stat()
        layer = ImageLayer(path=path, format="qcow2", virtual_size=header.virtual_size)
        if header.data_file is not None:
            raise ImageChainError(
                f"{path}: its data is in another file", hint="use imgtools image rebase"
            )
        node = nodes.chain_node([layer], Path(folder), writable=True)
        with contextlib.suppress(InUseError):
            hold.take_exclusive()  # readers may stay: what they read does not change
        words = ["-b", os.fsdecode(name), "-F", backing_format, nodes.spec(node)]
        run_job(["qemu-img", "rebase", "-u", *words])
        hold.sync()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        header = vet(path, "qcow2")
        if header.backing_file != name or header.backing_format != backing_format:
            raise ImageChainError(f"{path}: the parent's format was not stored")
