"""Check each thing that imgtools needs, and say how to cure what is not there.

Each check asks the room that uses the thing; a room that fails to answer costs its own line only.
"""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from imgtools.config import Config
from imgtools.errors import (
    EXIT_APPLIANCE,
    EXIT_MISSING,
    EXIT_OK,
    ImgtoolsError,
    MissingBindingError,
)
from imgtools.process import find_tool, run

Status = Literal["ok", "warn", "fail"]

DOCTOR = "imgtools doctor"
"""The hint of a failure that only a closer look explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the report: ``name`` is a stable word, ``cure`` a command, empty when ok."""

    name: str
    status: Status
    fact: str
    cure: str = ""
    exit_code: int = EXIT_OK


def examine(config: Config, *, connect: str = "", quick: bool = False) -> Iterator[Check]:
    """Yield each check when it is done; ``quick`` leaves out the appliance's launch (seconds)."""
    from imgtools.appliance import health
    from imgtools.direct.health import libraries

    yield Check(name="python", status="ok", fact=f"{platform.python_version()}, {sys.executable}")
    yield _ask("direct engine", libraries, EXIT_MISSING)
    yield _ask("qemu-img", _qemu_img, EXIT_MISSING)
    found = [
        _ask("guestfs binding", health.binding, EXIT_MISSING),
        _ask("qemu-system", health.hypervisor, EXIT_MISSING),
        _ask("supermin", health.supermin, EXIT_MISSING),
        _ask("kernel", health.kernel, EXIT_MISSING),
        _ask("temporary space", health.temporary_space, EXIT_APPLIANCE),
        _ask("cache space", health.cache_space, EXIT_APPLIANCE),
    ]
    yield from found
    able = all(check.status != "fail" for check in found)
    yield _kvm(config, found)
    yield _instant(config, try_it=able and not quick)
    if not quick:
        yield _launch(config) if able else _not_tried()
    yield _ask("hivex binding", _hivex, EXIT_MISSING, missing="warn")
    yield _libvirt(connect or config.connect)


def exit_code(checks: list[Check]) -> int:
    """7 if something is missing, else 5 if the appliance cannot start, else 0."""
    codes = {check.exit_code for check in checks if check.status == "fail"}
    if EXIT_MISSING in codes:
        return EXIT_MISSING
    return max(codes, default=EXIT_OK)


def _ask(name: str, question: Callable[[], str], code: int, *, missing: Status = "fail") -> Check:
    try:
        return Check(name=name, status="ok", fact=question())
    except ImgtoolsError as error:
        return Check(
            name=name, status=missing, fact=error.message, cure=error.hint or "", exit_code=code
        )


def _qemu_img() -> str:
    words = run(["qemu-img", "--version"]).stdout.decode(errors="replace").split()
    return f"{find_tool('qemu-img')}, {words[2] if len(words) > 2 else 'unknown version'}"


def _hivex() -> str:
    try:
        importlib.import_module("hivex")
    except ImportError as error:
        raise MissingBindingError(
            f"{error}; only Windows guests need it",
            hint="apt-get install --no-install-recommends python3-hivex",
        ) from error
    return "importable"


def _kvm(config: Config, needed: list[Check]) -> Check:
    from imgtools.appliance import health

    if any(check.status == "fail" for check in needed[:2]):
        return Check(name="kvm", status="warn", fact="not tried: qemu or the binding is missing")
    answer = health.kvm(config)
    if answer.works:
        return Check(name="kvm", status="ok", fact="works (a guest ran)")
    cure = "none needed: the appliance runs without KVM, only slower"
    if "may not be opened" in answer.reason:
        cure = 'sudo usermod -aG kvm "$USER", then log in again'
    elif "no /dev/kvm" in answer.reason:
        cure = "sudo modprobe kvm_intel || sudo modprobe kvm_amd, or enable it in the firmware"
    return Check(name="kvm", status="warn", fact=f"does not work: {answer.reason}", cure=cure)


def _instant(config: Config, *, try_it: bool) -> Check:
    """The instant appliance; without one, launches only take longer."""
    from imgtools.appliance import health

    def ask() -> str:
        return health.instant_appliance(config, try_it=try_it)

    check = _ask("instant", ask, EXIT_OK, missing="warn")
    if check.status == "warn" and not check.cure:
        return replace(check, cure="imgtools appliance build")
    return check


def _launch(config: Config) -> Check:
    from imgtools.appliance import health

    def start() -> str:
        facts = health.launch(config)
        return f"started in {facts.seconds:.1f} s ({facts.backend}, {facts.accelerator})"

    check = _ask("appliance", start, EXIT_APPLIANCE)
    if check.cure == DOCTOR:  # we are the doctor
        return replace(check, cure="read the end of: libguestfs-test-tool")
    return check


def _not_tried() -> Check:
    return Check(
        name="appliance",
        status="fail",
        fact="not started: something above is missing",
        cure="cure that first",
        exit_code=EXIT_APPLIANCE,
    )


def _libvirt(uri: str) -> Check:
    from imgtools.domain import connection

    def ask() -> str:
        return connection.check(uri)

    check = _ask("libvirt", ask, EXIT_OK, missing="warn")
    if check.status == "ok":
        return check
    fact = f"{check.fact}; only -d and 'df' without images need it"
    return Check(name="libvirt", status="warn", fact=fact, cure=check.cure)
