"""Give an overlay another parent, or none, without a change of what the guest sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imgtools.errors import RefusedError, SpaceError, ToolError
from imgtools.image import rebase
from imgtools.image.hold import Hold
from imgtools.image.inplace import alone, mend_leaks, space_error, without_nodes
from imgtools.image.job import Report, silent
from imgtools.model.disks import ImageLayer
from imgtools.model.notices import Notice
from imgtools.nodes import Node, chain_node
from imgtools.transaction.space import FLOOR, free
from imgtools.workflow.held import held, refuse_running
from imgtools.workflow.images import private_folder
from imgtools.workflow.opening import files_of_layers, finish_interrupted
from imgtools.workflow.rebase_chains import Wish, look, stored_name

Method = Literal["copy", "flatten", "header", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebased:
    """What was done, or would be: names as the header stores them.

    ``compared`` says that old and new parent were found equal; ``at_most`` is the number of bytes
    that the overlay may grow by, None where nothing is copied.
    """

    overlay: Path
    method: Method
    done: bool
    old: bytes | None
    new: bytes | None
    new_format: str | None
    compared: bool = False
    at_most: int | None = None
    warnings: tuple[Notice, ...] = ()


def rebase_overlay(wish: Wish, report: Report = silent) -> Rebased:
    """Do what ``wish`` says.

    The overlay shows the guest the same at every moment, except where its old parent is missing
    and the user said ``unsafe``.  Raises RefusedError and its kin for an image in use, a loop, an
    unsafe change that would change the content, too little space; what vetting raises; ToolError.
    """
    finish_interrupted(wish.overlay, untrusted=wish.untrusted)
    if wish.parent is not None:
        finish_interrupted(wish.parent, untrusted=wish.untrusted)
    found = look(wish)
    refuse_running([wish.overlay])
    below = files_of_layers([*(found.old or ())[1:], *found.new])
    with held(files_of_layers([found.layer]), below) as holds:
        with private_folder() as folder:
            result = _Rebasing(wish, holds, folder, report).run()
        for hold in holds:
            hold.sync()
    return result


class _Rebasing:
    """One rebase, with every image held."""

    def __init__(self, wish: Wish, holds: Sequence[Hold], folder: Path, report: Report) -> None:
        self._wish, self._holds, self._folder, self._report = wish, holds, folder, report
        # What was vetted before the lock may have been another file.
        self._found = look(wish)
        self._warnings: list[Notice] = []

    def run(self) -> Rebased:
        found, wish = self._found, self._wish
        if found.header.backing_file is None and wish.parent is None:
            return self._result("nothing", done=False)
        name = None if wish.parent is None else stored_name(wish.parent, wish.overlay)
        compared = self._compare()
        header_only = wish.unsafe and wish.parent is not None
        method: Method = "header" if header_only else "flatten" if name is None else "copy"
        at_most = None if method == "header" else self._growth(method)
        self._warn_smaller()
        if not wish.dry_run:
            mend_leaks(found.layer, self._folder)
            self._change(method, name)
        return self._result(
            method, done=not wish.dry_run, name=name, compared=compared, at_most=at_most
        )

    def _result(
        self,
        method: Method,
        *,
        done: bool,
        name: bytes | None = None,
        compared: bool = False,
        at_most: int | None = None,
    ) -> Rebased:
        return Rebased(
            overlay=self._wish.overlay,
            method=method,
            done=done,
            old=self._found.header.backing_file,
            new=name,
            new_format=self._found.new[0].format if name is not None else None,
            compared=compared,
            at_most=at_most,
            warnings=tuple(self._warnings),
        )

    def _compare(self) -> bool:
        """Refuse what would change the content; True when old and new parent were compared."""
        found, wish = self._found, self._wish
        if found.old is None:
            self._allow_missing()
            return False
        snapshots = found.header.snapshots
        if not wish.unsafe and not snapshots:
            return False
        if wish.parent is None:
            if snapshots and found.header.backing_file is not None:
                raise self._snapshots_rest_on_it()
            return False
        difference = self._difference(found.old[1:])
        if difference is None:
            return True
        if not wish.unsafe:
            raise self._snapshots_rest_on_it()
        raise RefusedError(
            f"{wish.overlay}: its content would change: the old and the new backing file "
            f"{difference}",
            hint="leave out -u: what differs is then copied into the overlay",
        )

    def _allow_missing(self) -> None:
        """Raise why the old parent cannot be read, unless the user knows that it is gone."""
        assert self._found.why is not None
        error = self._found.why
        if not self._wish.unsafe or self._wish.parent is None:
            error.hint = "bring it back; or, if another file holds the same: -u -b FILE"
            raise error
        self._warn(
            "rebase.unchecked",
            f"{self._wish.overlay}: its old backing file cannot be read, so that nobody compared "
            "it with the new one",
        )

    def _difference(self, old: Sequence[ImageLayer]) -> str | None:
        """How two parents differ, as the end of a sentence; None for equal ones."""
        new = self._found.new
        if not old:
            return "cannot be compared: there is no old one"
        if old[0].virtual_size != new[0].virtual_size:
            return f"have {old[0].virtual_size} and {new[0].virtual_size} bytes"
        if old[0].path.samefile(new[0].path) and old[0].format == new[0].format:
            return None
        offset = rebase.first_difference(self._lower(old, 1), self._lower(new, 2), self._report)
        return None if offset is None else f"differ from byte {offset} on"

    def _snapshots_rest_on_it(self) -> RefusedError:
        overlay = self._wish.overlay
        return RefusedError(
            f"{overlay}: holds internal snapshots, which rest on its backing file as well and "
            "would show other data",
            hint=f"copy out and delete them first: imgtools snapshot list {overlay}",
        )

    def _lower(self, layers: Sequence[ImageLayer], index: int) -> Node:
        return chain_node(layers, self._folder, index)

    def _growth(self, method: Method) -> int:
        """Bytes that the overlay may grow by.  Raises SpaceError if a flat one has no place."""
        assert self._found.old is not None
        whole = rebase.whole_size(self._lower(self._found.old, 0))
        place = self._found.layer.path
        if place.is_block_device():
            return whole
        most = max(0, whole - rebase.allocated(place))
        left = free(place.parent) - FLOOR
        if method == "flatten" and most > left:
            raise SpaceError(
                f"{place}: may grow by {most >> 20} MiB, and {max(0, left) >> 20} MiB are free "
                f"in {place.parent}",
                hint="free some space there, or write a copy elsewhere: imgtools convert",
            )
        return most

    def _warn_smaller(self) -> None:
        new, size = self._found.new, self._found.header.virtual_size
        if new and new[0].virtual_size < size:
            self._warn(
                "rebase.smaller",
                f"{self._wish.parent}: is smaller than the overlay ({new[0].virtual_size} of "
                f"{size} bytes); behind its end it counts as zeros",
            )

    def _warn(self, code: str, message: str) -> None:
        self._warnings.append(Notice(code=code, message=message))

    def _change(self, method: Method, name: bytes | None) -> None:
        found, overlay = self._found, self._wish.overlay
        try:
            if method != "header":
                assert found.old is not None
                node = chain_node(found.old, self._folder, 0, writable=True)
                parent = self._lower(found.new, 1) if found.new else None
                rebase.copy_differing(node, parent, self._report)
                for hold in self._holds:
                    hold.sync()
            stated = found.new[0].format if found.new else None
            rebase.store_parent(alone(found.layer, self._folder), name or b"", stated)
        except ToolError as error:
            if space_error(error):
                raise SpaceError(
                    f"{overlay}: the storage is full; the overlay rests on its old backing file, "
                    "and its content is as it was",
                    hint="free some space and do it again",
                ) from error
            raise ToolError(f"{overlay}: {without_nodes(error.message)}") from error
