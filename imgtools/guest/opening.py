"""From what the user pointed at to an open engine: vet, choose, and fall back.

*auto* runs the task on the direct engine first.  If the direct engine cannot be certain of any
answer the task asked for (`DirectError`), the whole task runs again on the appliance: half an
answer from one engine and half from the other would be no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from imgtools.config import Config, EngineChoice
from imgtools.errors import (
    ApplianceError,
    DamagedError,
    DirectError,
    ImgtoolsError,
    MissingBindingError,
    MissingError,
)
from imgtools.model.disks import Disk, KeySpec
from imgtools.model.notices import Notice

if TYPE_CHECKING:  # what works on image files alone starts without these
    from imgtools.model.engine import Engine, EngineName

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An open engine over one guest's disks, and a place for the warnings of the task.

    ``name`` is what to call the guest in listings: the domain's name, else the first disk's
    file name.
    """

    engine: Engine
    disks: tuple[Disk, ...]
    name: str
    warnings: list[Notice] = field(default_factory=list)

    def warn(self, code: str, message: str) -> None:
        """Record a warning once."""
        warning = Notice(code=code, message=message)
        if warning not in self.warnings:
            self.warnings.append(warning)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """What a task returned, on which engine, why not on the other, and its warnings."""

    result: T
    engine: EngineName
    reason: str
    warnings: tuple[Notice, ...]


def run_on_engine(
    task: Callable[[Session], T],
    disks: Sequence[Disk],
    *,
    name: str,
    choice: EngineChoice = "auto",
    keys: Sequence[KeySpec] = (),
    config: Config | None = None,
) -> Outcome[T]:
    """Run ``task`` on the engine of ``choice`` and close the engine.

    ``task`` must not print or keep the session: with *auto* it may be run twice.
    """
    config = config or Config()
    if choice == "direct":
        return _run(task, _open_direct(disks, keys), disks, name, "asked for")
    if choice == "appliance":
        return _run(task, _open_appliance(disks, keys, config), disks, name, "asked for")
    try:
        return _run(task, _open_direct(disks, keys), disks, name, "")
    except (DirectError, MissingBindingError) as error:
        refusal = error
    return _fall_back(task, _open_appliance(disks, keys, config), disks, name, refusal)


def _fall_back(
    task: Callable[[Session], T],
    engine: Engine,
    disks: Sequence[Disk],
    name: str,
    refusal: ImgtoolsError,
) -> Outcome[T]:
    """Run ``task`` on the appliance after the direct engine's ``refusal``."""
    try:
        outcome = _run(task, engine, disks, name, refusal.message)
    except (ApplianceError, MissingError) as error:
        # Two causes, and either may be what the user can mend.
        message = f"{error.message} (the appliance is needed: {refusal.message})"
        raise type(error)(message, hint=error.hint) from error
    if isinstance(refusal, DamagedError):
        # The kernel may not mind, or not notice; the owner of the image should.
        notice = Notice(code=refusal.code, message=f"{refusal.message}; read by the appliance")
        outcome = replace(outcome, warnings=(notice, *outcome.warnings))
    return outcome


def _run(
    task: Callable[[Session], T], engine: Engine, disks: Sequence[Disk], name: str, reason: str
) -> Outcome[T]:
    session = Session(engine=engine, disks=tuple(disks), name=name)
    for disk in disks:
        if disk.in_use:
            session.warn(
                "image.in-use",
                f"{disk.name}: in use by another process (a running guest?); "
                "what is shown may be inconsistent",
            )
    try:
        result = task(session)
        warnings = (*session.warnings, *engine.storage().warnings)
    finally:
        engine.close()
    return Outcome(result=result, engine=engine.name, reason=reason, warnings=warnings)


def _open_direct(disks: Sequence[Disk], keys: Sequence[KeySpec]) -> Engine:
    from imgtools.direct.engine import DirectEngine

    return DirectEngine(disks, keys)


def _open_appliance(disks: Sequence[Disk], keys: Sequence[KeySpec], config: Config) -> Engine:
    from imgtools.appliance.engine import ApplianceEngine

    return ApplianceEngine(disks, keys, config)
