"""Find interrupted changes and finish them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import (
    ImageError,
    ImageNotFoundError,
    ImgtoolsError,
    InUseError,
    ToolError,
)
from imgtools.image.chain import follow_chain
from imgtools.image.check import refuse_endless
from imgtools.image.inplace import left_by_a_killed_run, mend_leaks
from imgtools.transaction.recovery import Interrupted, find_interrupted, recorded_images
from imgtools.workflow.held import held, refuse_running
from imgtools.workflow.images import private_folder
from imgtools.workflow.opening import files_of_layers, finish_interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What was found at one image: ``done`` when it was dealt with, else why not.

    ``counts``: no record tells of an interrupted change, but the image's counts of its clusters
    are too high, as a killed qemu leaves them.
    """

    image: str
    interrupted: Interrupted | None = None
    counts: bool = False
    done: bool = False
    failure: ImgtoolsError | None = None


def recover_all(places: Sequence[Path], *, only_list: bool, untrusted: bool) -> list[Recovered]:
    """Deal with every interrupted change of the images ``places``, or in the folders among them.

    One that fails stops no other.  Without ``places``: this folder, and all block devices.  Of the
    images among ``places`` the tables are checked, too.
    Raises ImageNotFoundError for a place that is not there.
    """
    found: list[Recovered] = []
    seen: set[str] = set()
    for image in _images(places):
        if str(image) in seen:
            continue
        one = _recover(image, only_list=only_list, untrusted=untrusted)
        if one is None and any(place.absolute() == image for place in places):
            one = _mend(image, only_list=only_list, untrusted=untrusted)
        if one is not None:
            found.append(one)
            seen.update(one.interrupted.images if one.interrupted else [one.image])
    return found


def _recover(image: Path, *, only_list: bool, untrusted: bool) -> Recovered | None:
    try:
        interrupted = find_interrupted(image)
    except ImgtoolsError as error:
        return Recovered(image=str(image), failure=error)
    if interrupted is None:
        if not only_list:
            finish_interrupted(image, untrusted=untrusted)  # a record that was just being begun
        return None
    if only_list or interrupted.action == "busy":
        return Recovered(image=str(image), interrupted=interrupted)
    try:
        finish_interrupted(image, untrusted=untrusted)
    except ImgtoolsError as error:
        return Recovered(image=str(image), interrupted=interrupted, failure=error)
    return Recovered(image=str(image), interrupted=interrupted, done=True)


def _mend(image: Path, *, only_list: bool, untrusted: bool) -> Recovered | None:
    """Set right what a qemu that was killed left in an image; None if there is nothing.

    An image that cannot be read, or that somebody uses now, is left to the commands that need it.
    """
    try:
        link = next(follow_chain(image, None, untrusted=untrusted))
        if link.header.fatal or link.header.encrypted or image.is_block_device():
            return None
        layer = link.layer()
        refuse_endless(link.header)
        with held([], files_of_layers([layer])), private_folder() as folder:
            wrong = left_by_a_killed_run(layer, folder)
    except (InUseError, ImageError, ToolError):
        return None
    if not wrong or only_list:
        return Recovered(image=str(image), counts=True) if wrong else None
    try:
        refuse_running([image])
        with held(files_of_layers([layer])) as holds, private_folder() as folder:
            mend_leaks(layer, folder)
            for hold in holds:
                hold.sync()
    except ImgtoolsError as error:
        return Recovered(image=str(image), counts=True, failure=error)
    return Recovered(image=str(image), counts=True, done=True)


def _images(places: Sequence[Path]) -> list[Path]:
    images: list[Path] = []
    for place in places or [Path()]:
        if place.is_dir():
            images += recorded_images(place)
        elif place.exists():
            images.append(place.absolute())
        else:
            raise ImageNotFoundError(f"{place}: no such image or folder", hint="check the name")
    if not places:
        images += recorded_images(None)
    return images
