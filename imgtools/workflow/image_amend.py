"""Change the options and keys of an image file in one transaction on the file's own bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imgtools.errors import (
    EncryptedError,
    ImageUnsupportedError,
    ImgtoolsError,
    ToolError,
    UsageError,
)
from imgtools.image.amend import amend as amend_image
from imgtools.image.amend import cut, end_of, file_overlay, image_node
from imgtools.image.chain import Link, error_of, follow_chain
from imgtools.image.hold import holding
from imgtools.image.options import check_options
from imgtools.image.qemu import info
from imgtools.image.secret import secrets
from imgtools.model.disks import Disk, DiskRequest, ImageLayer
from imgtools.transaction.transaction import Transaction
from imgtools.workflow.held import refuse_running
from imgtools.workflow.images import private_folder
from imgtools.workflow.opening import finish_interrupted

ALLOWED = ("compat", "lazy_refcounts", "refcount_bits")
_SLACK = 1 << 30  # what a file may grow by, besides what its disk holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Amending:
    """What is to be changed: ``options`` of the format, and keys.  Nothing: only look.

    ``key`` opens an encrypted image; ``add_key`` and ``remove_key`` are passphrases of LUKS slots.
    """

    request: DiskRequest
    options: Mapping[str, str] = field(default_factory=dict)
    key: bytes | None = None
    add_key: bytes | None = None
    remove_key: bytes | None = None
    iter_time: int | None = None
    dry_run: bool = False
    untrusted: bool = False
    workdir: Path | None = None

    @property
    def idle(self) -> bool:
        """True if nothing is to be changed."""
        return not self.options and self.add_key is None and self.remove_key is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Amended:
    """qemu's ``format-specific`` data before and after; ``after`` None: nothing was changed."""

    image: str
    format: str
    before: Mapping[str, object]
    after: Mapping[str, object] | None


def amend(asked: Amending) -> Amended:
    """Amend an image, or look at its options.

    Raises UsageError for options that make no sense, EncryptedError for a wrong key, and what a
    transaction raises.
    """
    path = asked.request.path
    if path is None:
        raise UsageError(f"{asked.request.name}: is not a file of this host", hint="copy it here")
    if not asked.idle:
        refuse_running([path])
        finish_interrupted(path, untrusted=asked.untrusted)
    links = _links(asked)
    kind = links[0].header.format
    options = _checked(asked, links[0])
    before = _shown(path, kind)
    if asked.idle:
        return Amended(image=asked.request.name, format=kind, before=before, after=None)
    lower = [file for link in links[1:] for file in (link.header.path, *link.extents)]
    with holding([(file, False) for file in (*links[0].extents, *lower)]), _begun(asked) as begun:
        links = _links(asked)  # what was vetted before it was held may have been another file
        _change(asked, links, options, begun)
        if not asked.dry_run:
            begun.commit()
    after = None if asked.dry_run else _shown(path, kind)
    return Amended(image=asked.request.name, format=kind, before=before, after=after)


def _links(asked: Amending) -> list[Link]:
    assert asked.request.path is not None
    links = []
    for link in follow_chain(asked.request.path, asked.request.format, untrusted=asked.untrusted):
        if link.header.fatal is not None:
            raise error_of(link.header.path, link.header.fatal)
        links.append(link)
    return links


def _checked(asked: Amending, top: Link) -> dict[str, str]:
    kind, path = top.header.format, top.header.path
    if kind not in ("qcow2", "luks"):
        raise ImageUnsupportedError(
            f"{path}: images of the format {kind} have no options to amend",
            hint="convert it with the options that it should have",
        )
    options = check_options(asked.options, kind, "amend")
    for name in options:
        if name not in ALLOWED:
            raise UsageError(
                f"-o {name}: cannot be amended here", hint=f"known: {', '.join(ALLOWED)}"
            )
    encrypted = kind == "luks" or top.header.encryption == "luks"
    keys = (asked.add_key, asked.remove_key)
    if not encrypted and any(key is not None for key in (*keys, asked.key)):
        raise UsageError(f"{path}: is not encrypted by its format, and has no keys")
    if encrypted and not asked.idle and asked.key is None:
        raise EncryptedError(f"{path}: is encrypted", hint="name a file with its key: --key-file")
    return options


def _shown(path: Path, kind: str) -> Mapping[str, object]:
    data = info(path, kind).format_specific.get("data")
    return data if isinstance(data, dict) else {}


@contextlib.contextmanager
def _begun(asked: Amending) -> Iterator[Transaction]:
    """A transaction of the file itself: raw bytes, on which overlays may rest unharmed."""
    path = asked.request.path
    assert path is not None
    size = path.stat().st_size if path.is_file() else info(path, "raw").virtual_size
    layer = ImageLayer(path=path.absolute(), format="raw", virtual_size=size)
    disk = Disk(request=DiskRequest(path=path, format="raw"), layers=(layer,))
    with Transaction(
        [disk],
        command="image amend",
        workdir=asked.workdir,
        break_overlays=True,
        file_level=True,
    ) as transaction:
        yield transaction


def _change(
    asked: Amending, links: list[Link], options: Mapping[str, str], begun: Transaction
) -> None:
    from imgtools.appliance.overlay import make_overlay

    (disk,), (overlay,) = begun.disks, begun.overlays
    luks = links[0].header.format == "luks"
    layer = disk.layers[0]
    on_device = layer.path.is_block_device()
    room = layer.virtual_size
    if not on_device:
        room = -(-room // 512) * 512 + links[0].header.virtual_size + _SLACK
    with private_folder() as folder:
        make_overlay(disk, 0, folder, overlay, size=room)
        file = file_overlay(layer.path, overlay, folder)
        layers = [link.layer() for link in links]
        node = image_node(layers, file, folder, luks=luks, key=asked.key is not None)
        try:
            end = _amend_all(asked, node, options, luks=luks)
        except ToolError as error:
            raise _refined(error, asked) from error
        if not on_device:
            size = max(-(-layer.virtual_size // 512) * 512, -(-end // 512) * 512)
            cut(file, size)
            if size != layer.virtual_size:
                begun.resize(size)


def _amend_all(
    asked: Amending, node: dict[str, object], options: Mapping[str, str], *, luks: bool
) -> int:
    """Every change, one after the other; where the image then ends in its file."""
    prefix = "" if luks else "encrypt."
    steps: list[dict[str, str]] = [dict(options)] if options else []
    if asked.add_key is not None:
        timing = {f"{prefix}iter-time": str(asked.iter_time)} if asked.iter_time else {}
        steps.append({f"{prefix}state": "active", f"{prefix}new-secret": "new", **timing})
    if asked.remove_key is not None:
        steps.append({f"{prefix}state": "inactive", f"{prefix}old-secret": "old"})
    with secrets({"key": asked.key, "new": asked.add_key, "old": asked.remove_key}) as keys:
        for step in steps:
            amend_image(node, step, keys)
    still = asked.add_key if asked.add_key is not None else asked.key
    with secrets({"key": still}) as keys:
        return 0 if luks else end_of(node, keys)


def _refined(error: ToolError, asked: Amending) -> ImgtoolsError:
    name = asked.request.name
    if "Invalid password" in error.message:
        return EncryptedError(f"{name}: the key does not open it", hint="see --key-file")
    return UsageError(f"{name}: {error.message}; the image is as it was")
