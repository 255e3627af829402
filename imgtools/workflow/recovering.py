"""Find interrupted changes and finish them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import ImageNotFoundError, ImgtoolsError
from imgtools.transaction.recovery import Interrupted, find_interrupted, recorded_images
from imgtools.workflow.opening import finish_interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What was found at one image: ``done`` when it was dealt with, else why not."""

    image: str
    interrupted: Interrupted | None = None
    done: bool = False
    failure: ImgtoolsError | None = None


def recover_all(places: Sequence[Path], *, only_list: bool, untrusted: bool) -> list[Recovered]:
    """Deal with every interrupted change of the images ``places``, or in the folders among them.

    One that fails stops no other.  Without ``places``: this folder, and all block devices.
    Raises ImageNotFoundError for a place that is not there.
    """
    found: list[Recovered] = []
    seen: set[str] = set()
    for image in _images(places):
        if str(image) in seen:
            continue
        one = _recover(image, only_list=only_list, untrusted=untrusted)
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
