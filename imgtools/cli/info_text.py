"""The text that ``imgtools info`` prints for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from imgtools.cli.human import human_size
from imgtools.cli.render import print_columns, safe_text

if TYPE_CHECKING:
    from imgtools.image.header import ImageHeader
    from imgtools.image.locks import LockState
    from imgtools.workflow.info import ImageReport, LayerReport

LABEL_WIDTH = 14
MAX_ROWS = 1000


def print_report(report: ImageReport, *, first: bool) -> None:
    """Print one image: facts, snapshots, bitmaps, extents and the chain."""
    if not first:
        print()
    print(safe_text(report.name))
    if report.remote:
        _fact("remote", "yes")
        if report.format is not None and report.virtual_size is not None:
            _fact("format", report.format)
            _fact("virtual size", _size(report.virtual_size))
        return
    top = report.layers[0]
    for label, text in _facts(top):
        _fact(label, text)
    for problem in top.header.problems:
        _fact("PROBLEM" if problem.fatal else "note", problem.message)
    _print_snapshots(top.header)
    _print_bitmaps(top.header)
    _print_extents(top.header)
    if len(report.layers) > 1 or _broken_below(report):
        _print_chain(report)


def _broken_below(report: ImageReport) -> bool:
    """True when the chain goes on below the last layer shown, but could not be followed."""
    return report.error is not None and report.layers[-1].header.fatal is None


def _fact(label: str, text: str | bytes) -> None:
    print(f"  {label + ':':<{LABEL_WIDTH}} {safe_text(text)}")


def _facts(layer: LayerReport) -> Iterator[tuple[str, str | bytes]]:
    header = layer.header
    yield "format", _format(header)
    yield "virtual size", _size(header.virtual_size)
    yield "file size", _file_size(layer)
    if header.cluster_size:
        yield "clusters", human_size(header.cluster_size)
    if header.compression:
        yield "compression", header.compression
    if header.encryption:
        yield "encrypted", header.encryption
    if header.features:
        yield "features", ", ".join(header.features)
    if header.backing_file is not None:
        kind = f" ({header.backing_format})" if header.backing_format else " (format not named)"
        yield "backing file", header.backing_file + kind.encode(errors="surrogateescape")
    if header.data_file is not None:
        yield "data file", header.data_file + (b" (raw)" if header.data_file_raw else b"")
    yield "in use", _use(layer.locks)


def _format(header: ImageHeader) -> str:
    version = "" if header.variant or header.version is None else f" version {header.version}"
    variant = f", {header.variant}" if header.variant else ""
    return f"{header.format}{version}{variant}" + (", as stated" if header.stated else "")


def _size(size: int) -> str:
    return f"{human_size(size)} ({size} bytes)"


def _file_size(layer: LayerReport) -> str:
    size = layer.header.file_size
    taken = layer.qemu.actual_size if layer.qemu is not None else None
    text = _size(size)
    return text if taken is None else f"{text}, {human_size(taken)} taken on this host"


def _use(locks: LockState) -> str:
    if not locks.held:
        return "no"
    who = ", ".join(f"{holder.name} (pid {holder.pid})" for holder in locks.holders)
    how = "for writing" if locks.writer else "for reading"
    return f"{how}, by {who or 'another process'}"


def _print_snapshots(header: ImageHeader) -> None:
    if not header.snapshots:
        return
    print("\n  Internal snapshots")
    rows: list[tuple[str, ...]] = [("    ID", "DATE (UTC)", "VM STATE", "SIZE", "NAME")]
    for snapshot in header.snapshots[:MAX_ROWS]:
        date = datetime.fromtimestamp(snapshot.date_seconds, UTC)
        size = snapshot.virtual_size
        rows.append(
            (
                f"    {snapshot.id}",
                f"{date:%Y-%m-%d %H:%M:%S}",
                human_size(snapshot.vm_state_size),
                "" if size is None else human_size(size),
                snapshot.name,
            )
        )
    print_columns(rows, right=(2, 3), gap="  ")


def _print_bitmaps(header: ImageHeader) -> None:
    if not header.bitmaps:
        return
    print("\n  Bitmaps")
    rows: list[tuple[str, ...]] = [("    GRANULARITY", "FLAGS", "NAME")]
    rows += [
        (f"    {human_size(bitmap.granularity)}", ",".join(bitmap.flags), bitmap.name)
        for bitmap in header.bitmaps[:MAX_ROWS]
    ]
    print_columns(rows, gap="  ")


def _print_extents(header: ImageHeader) -> None:
    if not header.extents:
        return
    print("\n  Extents")
    rows: list[tuple[str | bytes, ...]] = [("    ACCESS", "KIND", "SIZE", "FILE")]
    rows += [
        (f"    {extent.access}", extent.kind, human_size(extent.size), extent.file or "")
        for extent in header.extents[:MAX_ROWS]
    ]
    print_columns(rows, right=(2,), gap="  ")


def _print_chain(report: ImageReport) -> None:
    print("\n  Backing chain, top to base")
    rows: list[tuple[str, ...]] = [("    LAYER", "FORMAT", "VIRTUAL", "IN USE", "FILE")]
    for number, layer in enumerate(report.layers):
        header = layer.header
        use = "writing" if layer.locks.writer else "reading" if layer.locks.held else "no"
        rows.append(
            (f"    {number}", header.format, human_size(header.virtual_size), use, str(header.path))
        )
    if _broken_below(report):
        rows.append((f"    {len(report.layers)}", "?", "?", "?", "broken off here, see the error"))
    print_columns(rows, right=(2,), gap="  ")
