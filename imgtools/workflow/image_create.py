"""Make a new image: its options checked, its backing file vetted, whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imgtools.errors import ImgtoolsError, SpaceError, UsageError
from imgtools.image.create import bytes_needed, create_image, name_data_file
from imgtools.image.newfile import behind_links, new_file, refuse_existing
from imgtools.image.options import check_options, options_of
from imgtools.image.secret import secrets
from imgtools.image.vet import MAX_VIRTUAL_SIZE, vet
from imgtools.model.disks import KNOWN_FORMATS
from imgtools.model.notices import Notice
from imgtools.transaction.space import free
from imgtools.workflow.image_backing import Backing, use_backing
from imgtools.workflow.image_target import onto_device, refuse_used
from imgtools.workflow.images import private_folder

SECTOR = 512

# What has a place of its own on the command line.
_ELSEWHERE = {
    "backing_file": "-b FILE",
    "backing_fmt": "-F FORMAT",
    "size": "the second word",
    "encrypt.key-secret": "--key-file FILE",
    "key-secret": "--key-file FILE",
    "encryption": "-o encrypt.format=luks --key-file FILE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """What is to be made.  ``size`` in bytes; None: as large as the backing file.

    ``format`` None: qcow2.  ``backing`` is the name as it is to be stored, relative to the image's
    folder or absolute.  ``key`` encrypts the image (LUKS).
    """

    target: Path
    format: str | None = None
    size: int | None = None
    backing: str | None = None
    backing_format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    key: bytes | None = None
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """The image as it is now; ``virtual_size`` in bytes, ``options`` as qemu-img got them."""

    image: Path
    format: str
    virtual_size: int
    backing_file: str | None
    backing_format: str | None
    data_file: Path | None
    encrypted: bool
    options: Mapping[str, str]
    warnings: tuple[Notice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    target: Path
    format: str
    size: int
    options: Mapping[str, str]
    backing: Backing | None
    key: bytes | None
    data_file: Path | None
    force: bool


def create(new: NewImage) -> Created:
    """Make the image, in place when everything is on its storage.

    Raises UsageError for options that make no sense, RefusedError and its kin where something is in
    the way, ImageError and its kin for a bad backing file.
    """
    image_format = _format(new)
    options = _options(new, image_format)
    refuse_used(new.target, force=new.force)
    with use_backing(new.target, new.backing, new.backing_format) as backing:
        size, warnings = _size(new, backing)
        data_file = options.pop("data_file", None)
        plan = _Plan(
            target=new.target,
            format=image_format,
            size=size,
            options=options,
            backing=backing,
            key=new.key,
            data_file=_beside(new.target, data_file) if data_file is not None else None,
            force=new.force,
        )
        if backing is not None:
            _require_backing_support(plan)
            warnings = (*backing.warnings, *warnings)
        made = _on_device(plan) if new.target.is_block_device() else _as_file(plan)
    if made != size:
        text = f"{new.target}: {made} bytes, since the format cannot have exactly {size}"
        warnings = (*warnings, Notice(code="image.size-rounded", message=text))
    return Created(
        image=new.target,
        format=image_format,
        virtual_size=made,
        backing_file=backing.stored if backing else None,
        backing_format=backing.format if backing else None,
        data_file=plan.data_file,
        encrypted=plan.key is not None,
        options=options,
        warnings=warnings,
    )


# --- what was asked for --------------------------------------------------------------------------


def _format(new: NewImage) -> str:
    name = {None: "qcow2", "vhd": "vpc"}.get(new.format, new.format)
    if name not in KNOWN_FORMATS:
        known = ", ".join(KNOWN_FORMATS)
        raise UsageError(f"-f {name}: unknown image format", hint=f"known: {known}")
    if not options_of(name):
        raise UsageError(f"-f {name}: this qemu-img cannot make images of that format")
    if new.target.suffix.lower() == ".raw" and name != "raw":
        raise UsageError(
            f"{new.target}: by its name it would be read as raw, not as {name}",
            hint="say -f raw, or choose another name",
        )
    return name


def _options(new: NewImage, image_format: str) -> dict[str, str]:
    for name in new.options:
        if name in _ELSEWHERE:
            raise UsageError(f"-o {name}: is given by {_ELSEWHERE[name]}")
    options = check_options(new.options, image_format)
    crypt = options.get("encrypt.format", "luks" if image_format == "luks" else None)
    if crypt not in (None, "luks"):
        raise UsageError(
            f"-o encrypt.format={crypt}: only luks is safe", hint="-o encrypt.format=luks"
        )
    if new.key is None:
        if crypt is not None:
            raise UsageError(
                "an encrypted image needs a key", hint="--key-file FILE, or --key-file - for stdin"
            )
        return options
    if image_format == "luks":
        options["key-secret"] = "key"
    elif image_format == "qcow2":
        options |= {"encrypt.format": "luks", "encrypt.key-secret": "key"}
    else:
        raise UsageError(
            f"--key-file: images of the format {image_format} cannot be encrypted",
            hint="-f qcow2, or -f luks",
        )
    return options


def _size(new: NewImage, backing: Backing | None) -> tuple[int, tuple[Notice, ...]]:
    """The size in whole sectors, and what is odd about it."""
    asked = new.size if new.size is not None else backing.size if backing else None
    if asked is None:
        raise UsageError(
            f"{new.target}: which size?", hint=f"imgtools image create {new.target} 10G"
        )
    size = -(-asked // SECTOR) * SECTOR
    if size > MAX_VIRTUAL_SIZE:
        raise UsageError(f"{asked}: a disk of that size cannot be addressed")
    notices = []
    if size != asked:
        text = f"{new.target}: {size} bytes, since a disk has whole sectors of {SECTOR} bytes"
        notices.append(Notice(code="image.size-rounded", message=text))
    if backing is not None and size < backing.size:
        text = (
            f"{new.target}: smaller ({size} bytes) than its backing file {backing.stored} "
            f"({backing.size} bytes), whose end the guest will not see"
        )
        notices.append(Notice(code="image.smaller-than-backing", message=text))
    return size, tuple(notices)


def _require_backing_support(plan: _Plan) -> None:
    # qcow and vmdk do not store the format of their backing file, which would have to be guessed.
    if plan.format not in ("qcow2", "qed"):
        raise UsageError(
            f"-f {plan.format}: images of this format cannot rest on a backing file safely",
            hint="-f qcow2",
        )


def _beside(target: Path, name: str) -> Path:
    """A data file by its absolute name: qemu takes a relative one from where one stands."""
    if not name:
        raise UsageError("-o data_file=: the name is empty")
    found = target.absolute().parent / name
    if os.path.realpath(found) == os.path.realpath(target):
        raise UsageError(f"-o data_file={name}: is the image itself")
    return found


# --- making it -----------------------------------------------------------------------------------


def _as_file(plan: _Plan) -> int:
    refuse_existing(plan.target, force=plan.force)
    if plan.data_file is not None:
        refuse_used(plan.data_file, force=plan.force)
    _require_space(plan)
    sources = plan.backing.files if plan.backing else ()
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(new_file(plan.target, force=plan.force, sources=sources))
        data = None
        if plan.data_file is not None:
            data = stack.enter_context(
                new_file(plan.data_file, force=plan.force, sources=(*sources, plan.target))
            )
        return _make(plan, made, data)


def _on_device(plan: _Plan) -> int:
    if plan.format != "qcow2" or plan.data_file is not None or "preallocation" in plan.options:
        raise UsageError(
            f"{plan.target}: on a block device only a plain qcow2 image can be made",
            hint="-f qcow2, without preallocation and data_file",
        )
    with private_folder() as folder:
        made = folder / "image"
        size = _make(plan, made, None)
        onto_device(made, plan.target)
    return size


def _make(plan: _Plan, made: Path, data: Path | None) -> int:
    """Make the image at ``made``, and its data file at ``data``.  Returns its virtual size."""
    options = dict(plan.options)
    if data is not None:
        options["data_file"] = str(data)
    backing = (plan.backing.stored, plan.backing.format) if plan.backing else None
    with secrets({"key": plan.key}) as keys, private_folder() as folder:
        try:
            create_image(made, plan.format, plan.size, options, backing=backing, secrets=keys)
            if data is not None and plan.data_file is not None:
                name_data_file(made, data, plan.data_file, folder, keys)
        except ImgtoolsError as error:
            raise type(error)(f"{plan.target}: {error.message}", hint=error.hint) from error
    # The size that LUKS has room for is not in its header, but it is what we asked for.
    return plan.size if plan.format == "luks" else vet(made, plan.format).virtual_size


def _require_space(plan: _Plan) -> None:
    folder = behind_links(plan.data_file or plan.target).absolute().parent
    if not folder.is_dir():
        return  # which new_file says better
    needed, left = bytes_needed(plan.format, plan.size, plan.options), free(folder)
    if needed > left:
        raise SpaceError(
            f"{plan.target}: its preallocation needs {needed} bytes in {folder}, where {left} are "
            "free",
            hint="free some space, make it smaller, or leave --preallocation out",
        )


def refuse_both(options: Mapping[str, str], preallocation: str | None) -> dict[str, str]:
    """``options`` with ``--preallocation``.  Raises UsageError if both say something."""
    if preallocation is None:
        return dict(options)
    if options.get("preallocation", preallocation) != preallocation:
        raise UsageError("--preallocation and -o preallocation contradict each other")
    return {**options, "preallocation": preallocation}
