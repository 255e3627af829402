"""How much space a new image would take: a copy of a disk, or an empty one of a size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imgtools.errors import ImageUnsupportedError, UsageError
from imgtools.image.measure import Measured, any_key, can_measure, measure
from imgtools.image.readable import find_snapshot, header_of, source_node
from imgtools.image.secret import SOURCE, TARGET, secrets
from imgtools.image.target import MEASURABLE
from imgtools.image.vet import MAX_VIRTUAL_SIZE
from imgtools.model.disks import DiskRequest
from imgtools.model.notices import Notice
from imgtools.workflow.images import private_folder, to_read
from imgtools.workflow.opening import pending_notices, refuse_pending


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
    request: DiskRequest,
    plan: Plan,
    *,
    snapshot: str | None,
    untrusted: bool,
    key: bytes | None = None,
) -> tuple[Measured, list[Notice]]:
    """A copy of a disk, and what is odd about that; ``key`` is that of an encrypted one.

    Raises as `imgtools.workflow.converting.convert_image` does.
    """
    _refuse_unknown(plan)
    options = _with_key(plan)
    with (
        to_read([request], untrusted=untrusted, unlock=key is not None) as (disk,),
        private_folder() as folder,
        secrets({SOURCE: key, TARGET: any_key(options)}) as keys,
    ):
        if snapshot is not None:
            refuse_pending(disk)
        found = None if snapshot is None else find_snapshot(header_of(disk), snapshot)
        node = source_node(disk, folder, key=None if key is None else SOURCE)
        measured = measure(
            node, plan.target_format, options, name=disk.name, snapshot=found, keys=keys
        )
        return measured, pending_notices([disk])


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
