"""Ask ``qemu-img info`` about one vetted image, in a way that lets it guess nothing.

The driver and the file are given as options, so no name is ever read as a protocol and no
content is ever probed; ``info`` opens neither the backing file nor a qcow2 data file
(qemu-img.c opens with BDRV_O_NO_BACKING and BDRV_O_NO_IO), and the extents of a VMDK have been
vetted.  ``-U`` takes no lock that a running guest would notice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imgtools.errors import ToolError
from imgtools.image.secret import Secrets
from imgtools.nodes import Node, spec
from imgtools.process import run

TIMEOUT = 30.0
MAX_OUTPUT = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuInfo:
    """What qemu-img says of one image; sizes in bytes, ``actual_size`` as the host stores it.

    ``format_specific`` is qemu's ``format-specific`` object as it is, with qemu's key names.
    """

    virtual_size: int
    actual_size: int | None = None
    cluster_size: int | None = None
    dirty: bool = False
    snapshots: tuple[Mapping[str, object], ...] = ()
    format_specific: Mapping[str, object] = field(default_factory=dict)


def image_options(path: Path, image_format: str) -> str:
    """The ``--image-opts`` text that means exactly this file in exactly this format."""
    protocol = "host_device" if path.is_block_device() else "file"
    name = os.fspath(path.absolute()).replace(",", ",,")
    return f"driver={image_format},file.driver={protocol},file.filename={name}"


def info(path: Path, image_format: str) -> QemuInfo:
    """Run ``qemu-img info`` on one image of a chain, which must have been vetted.

    Raises MissingToolError, ToolTimeoutError, and ToolError when qemu-img refuses the image.
    """
    words = ["--force-share", "--image-opts", image_options(path, image_format)]
    return _record(_info(words, f"qemu-img cannot read {path}: ", str(path)))


def node_size(node: Node, keys: Secrets = Secrets()) -> int:  # noqa: B008 (immutable)
    """The size in bytes of what qemu-img opens as ``node``.  Raises as `info` does."""
    return _record(_info([*keys.words, spec(node)], "", "", keys.fds)).virtual_size


def _info(
    words: Sequence[str], about: str, name: str, pass_fds: Sequence[int] = ()
) -> Mapping[str, object]:
    completed = run(
        ["qemu-img", "info", "--output=json", *words],
        timeout=TIMEOUT,
        max_output=MAX_OUTPUT,
        check=False,
        pass_fds=pass_fds,
    )
    if completed.returncode != 0:
        raise ToolError(f"{about}{completed.last_error_line()}")
    try:
        facts = json.loads(completed.stdout)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise ToolError(f"qemu-img info {name}: its answer is not the expected JSON")
    return facts


def _record(facts: Mapping[str, object]) -> QemuInfo:
    snapshots = facts.get("snapshots")
    specific = facts.get("format-specific")
    return QemuInfo(
        virtual_size=_number(facts, "virtual-size") or 0,
        actual_size=_number(facts, "actual-size"),
        cluster_size=_number(facts, "cluster-size"),
        dirty=facts.get("dirty-flag") is True,
        snapshots=tuple(snapshots) if isinstance(snapshots, list) else (),
        format_specific=specific if isinstance(specific, dict) else {},
    )


def _number(facts: Mapping[str, object], name: str) -> int | None:
    value = facts.get(name)
    return value if isinstance(value, int) else None
