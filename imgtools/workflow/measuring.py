"""How much space a new image would take: a copy of a disk, or an empty one of a size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imgtools.errors import ImageUnsupportedError, UsageError
from imgtools.image.measure import Measured, can_measure, measure
from imgtools.image.readable import find_snapshot, source_node
from imgtools.image.target import MEASURABLE
from imgtools.image.vet import MAX_VIRTUAL_SIZE, vet
from imgtools.model import DiskRequest
from imgtools.workflow.images import private_folder, to_read


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The new image: its format and ``-o`` options."""

    target_format: str
    options: Mapping[str, str]


def measure_empty(size: int, plan: Plan) -> Measured:
    """An image of ``size`` bytes without data.  Raises UsageError, ImageUnsupportedError."""
    _refuse_unknown(plan)
    if size > MAX_VIRTUAL_SIZE:
        raise UsageError(f"{size}: a disk of that size cannot be addressed")
    return measure(size, plan.target_format, _with_key(plan), name=f"{size} bytes")


def measure_image(
    request: DiskRequest, plan: Plan, *, snapshot: str | None, untrusted: bool
) -> Measured:
    """A copy of a disk.  Raises as `imgtools.workflow.converting.convert_image` does."""
    _refuse_unknown(plan)
    with (
        to_read([request], untrusted=untrusted) as (disk,),
        private_folder() as folder,
    ):
        top = disk.layers[0]
        found = None if snapshot is None else find_snapshot(vet(top.path, top.format), snapshot)
        node = source_node(disk, folder)
        return measure(node, plan.target_format, _with_key(plan), name=disk.name, snapshot=found)


def _with_key(plan: Plan) -> dict[str, str]:
    """The options; those of an encrypted image want a key, see `imgtools.image.measure`."""
    options = dict(plan.options)
    if plan.target_format == "luks":
        options["key-secret"] = "target"
    elif any(name.startswith("encrypt.") for name in options):
        options.setdefault("encrypt.format", "luks")
        options["encrypt.key-secret"] = "target"
    return options


def _refuse_unknown(plan: Plan) -> None:
    if not can_measure(plan.target_format):
        raise ImageUnsupportedError(
            f"{plan.target_format}: qemu-img does not know what such an image takes",
            hint=f"formats that can be measured: {', '.join(MEASURABLE)}",
        )
