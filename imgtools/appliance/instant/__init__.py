"""The instant appliance: resume a saved machine instead of booting one.

Charter: the one place of the room that knows templates; ``launch`` asks `choose` for one and tells
it how the launch went, everything else asks `status`, `build_template`, `clean`.  ``template`` is
the folder on disk and what it depends on, ``build`` makes it, ``machine`` and ``hypervisor`` are
qemu's words, ``hypervisor.py`` also being the program in a template that libguestfs starts as its
qemu; ``guest/`` is what runs inside.  libguestfs is unmodified: ``set_path`` and ``set_hv`` are all
it is told.  docs/instant-appliance.md tells the whole story.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from imgtools.appliance import preflight
from imgtools.appliance.instant import template
from imgtools.appliance.instant.short import short_name
from imgtools.appliance.instant.template import Template
from imgtools.appliance.library import open_handle
from imgtools.appliance.probe import kvm_works
from imgtools.config import Config
from imgtools.errors import ApplianceError, ImgtoolsError, NoTemplateError, RefusedError
from imgtools.model.notices import Notice

# Whoever sets one of these wants an appliance or a qemu of his own.
OWN_WAY = ("LIBGUESTFS_PATH", "LIBGUESTFS_HV", "LIBGUESTFS_QEMU", "LIBGUESTFS_APPEND")
ADVICE = "advice.instant"

State = Literal["ready", "stale", "set-aside", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateStatus:
    """One template on disk.

    ``state``: ``ready`` to be used, ``stale`` (made for a host as it was), ``set-aside`` after
    failures, ``refused`` for its permissions; ``reason`` says more.  ``size`` in bytes on disk;
    ``built`` in seconds since the epoch; ``memory`` in MiB; ``instant_seconds`` and
    ``stock_seconds`` are the launches measured when it was built (stock under KVM only).
    """

    name: str
    path: str
    state: State
    reason: str
    size: int
    built: int | None = None
    memory: int | None = None
    accelerator: str = ""
    instant_seconds: float | None = None
    stock_seconds: float | None = None
    failures: tuple[str, ...] = ()


def own_way() -> str:
    """The variable of libguestfs that keeps us from interfering; empty if none is set."""
    return next((name for name in OWN_WAY if os.environ.get(name)), "")


def choose(handle: Any, config: Config, accelerator: str) -> Template:
    """The template for a launch with ``handle``.

    Raises NoTemplateError with the reason if the launch must be a stock one, RefusedError if
    templates lie where others may change them.
    """
    if not config.instant:
        raise NoTemplateError("turned off (--no-instant or IMGTOOLS_INSTANT=0)")
    if variable := own_way():
        raise NoTemplateError(f"{variable} is set")
    if handle.get_network():
        raise NoTemplateError("the appliance needs a network")
    if handle.get_smp() > 1:
        raise NoTemplateError("the appliance needs several processors")
    found = template.find(config, _facts(handle, config, accelerator))
    if not found.faster:
        raise NoTemplateError("a stock launch is faster on this host")
    return found


def advice(config: Config) -> list[Notice]:
    """How to get the instant appliance; once in a cache folder's life."""
    marker = config.cache_path() / "instant-advice"
    if not config.instant or own_way() or not os.isatty(2) or marker.exists():
        return []
    try:
        marker.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        marker.touch()
    except OSError:
        return []
    text = "the appliance can start in about a second: imgtools appliance build (once, 30 s)"
    return [Notice(code=ADVICE, message=text)]


def build_template(config: Config, *, force: bool, talk: Callable[[str], None]) -> Template:
    """Build the template for this host, or return the one that is there already.

    ``talk`` is told each step in a few words.  Raises ApplianceError and its kin, MissingError,
    RefusedError, ToolError.
    """
    from imgtools.appliance.instant import build

    if variable := own_way():
        raise ApplianceError(
            f"{variable} is set: the appliance that it names is not ours to save",
            hint=f"unset {variable}",
        )
    if os.uname().machine != "x86_64":
        raise ApplianceError(f"the instant appliance is not known on {os.uname().machine}")
    handle = _handle()
    preflight.check_host(handle.get_hv(), handle.get_path())
    parent = template.instant_folder(config)
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    template.check_folder(parent)
    accelerator = "KVM" if kvm_works(handle.get_hv(), config)[0].works else "TCG"
    facts = _facts(handle, config, accelerator)
    with build.locked(parent, talk):
        if not force:
            try:
                return template.find(config, facts)
            except NoTemplateError:
                pass
        return build.build(
            parent,
            facts,
            record_launch=lambda folder, hv: _record_launch(folder, hv, config, accelerator),
            measure=lambda made: _measure(made, config),
            talk=talk,
        )


def current(config: Config) -> Template:
    """The template that a launch would use now.  Raises as `choose` does, and MissingError."""
    handle = _handle()
    accelerator = "KVM" if kvm_works(handle.get_hv(), config)[0].works else "TCG"
    return choose(handle, config, accelerator)


def status(config: Config) -> list[TemplateStatus]:
    """Every template on disk, and for each whether a launch would use it."""
    try:
        used: Path | None = current(config).folder
        reason = ""
    except ImgtoolsError as error:
        used, reason = None, error.message
    return [_status(folder, used, reason) for folder in template.folders(config)]


def clean(config: Config, *, everything: bool) -> Iterator[tuple[str, int]]:
    """Remove templates that no launch would use, or all; yields names and the bytes freed."""
    for one in status(config):
        if everything or one.state != "ready":
            yield one.name, template.remove(Path(one.path))


def _status(folder: Path, used: Path | None, reason: str) -> TemplateStatus:
    state: State = "ready" if folder == used else "stale"
    record: dict[str, Any] = {}
    why = "" if folder == used else reason or "made for another host, or for this one as it was"
    try:
        record = template.read_template(folder).record
    except (NoTemplateError, RefusedError) as error:
        state, why = ("refused" if isinstance(error, RefusedError) else "stale"), error.message
    failures = tuple(template.failures(folder))
    if folder.name.startswith("bad-"):
        state, why = "set-aside", f"{len(failures)} launches in a row failed"
    elif folder.name.startswith("."):
        state, why = "stale", "a build that is running, or was killed"
    seconds = record.get("seconds", {})
    return TemplateStatus(
        name=folder.name,
        path=str(folder),
        state=state,
        reason=why,
        size=template.size_on_disk(folder),
        built=record.get("built"),
        memory=record.get("memory"),
        accelerator=record.get("identity", {}).get("accelerator", ""),
        instant_seconds=seconds.get("instant"),
        stock_seconds=seconds.get("stock"),
        failures=failures,
    )


def _handle() -> Any:
    return open_handle()


def _facts(handle: Any, config: Config, accelerator: str) -> dict[str, Any]:
    version = handle.version()
    return template.identity(
        qemu=handle.get_hv(),
        search_path=handle.get_path(),
        library=f"{version['major']}.{version['minor']}.{version['release']}{version['extra']}",
        memory=config.memsize or handle.get_memsize(),
        accelerator=accelerator,
    )


def _record_launch(folder: Path, hv: Path, config: Config, accelerator: str) -> list[str]:
    """Let libguestfs launch the program ``hv``, which notes its words in the folder and ends."""
    handle = _handle()
    handle.set_backend("direct")
    if accelerator == "TCG":
        handle.set_backend_settings(["force_tcg"])
    if config.memsize:
        handle.set_memsize(config.memsize)
    handle.set_path(str(folder))
    handle.set_event_callback(lambda *_: None, 0x10 | 0x20 | 0x200)
    try:
        handle.add_drive_scratch(1 << 20)
        with short_name(hv) as program:
            handle.set_hv(str(program))
            handle.launch()
    except RuntimeError as error:
        words = folder / "words"
        if words.exists():
            return words.read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
        raise ApplianceError(f"libguestfs does not start its qemu: {error}") from error
    finally:
        handle.close()
    raise ApplianceError("libguestfs took a program that only notes its words for qemu")


def _measure(made: Template | None, config: Config) -> float:
    """Seconds that a launch takes.  Raises ApplianceError if it fails."""
    from imgtools.appliance.health import launch

    return launch(config, made or "stock").seconds
