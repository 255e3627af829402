"""What every test may use: built images, and the guard that keeps unit tests inside the process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

import fixtures

# How long one example takes says more about the machine's load than about us.
settings.register_profile("imgtools", deadline=None)
settings.load_profile("imgtools")

BINDINGS = ("guestfs", "libguestfsmod")  # libvirt stays: its test:// driver lives in-process


class OutsideUnitTestError(BaseException):
    """A test marked ``unit`` reached outside; a BaseException, so that no handler swallows it."""


@pytest.fixture(scope="session")
def image() -> Callable[[str], Path]:
    """``image("debian-lvm")``: the main disk of a fixture, built if need be."""
    return fixtures.get


@pytest.fixture(scope="session")
def disks() -> Callable[[str], list[Path]]:
    """``disks("lvm-twins")``: all disks of a fixture, in order, built if need be."""
    return fixtures.disks


class _NoBindings(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in BINDINGS:
            raise OutsideUnitTestError(f"a unit test imported {fullname}")
        return None


@pytest.fixture(autouse=True)
def _unit_tests_stay_inside(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    if request.node.get_closest_marker("unit") is None:
        yield
        return

    def refuse(*args: object, **kwargs: object) -> None:
        command = args[1] if len(args) > 1 else args
        raise OutsideUnitTestError(f"a unit test started a program: {command}")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    for name in ("system", "posix_spawn", "posix_spawnp", "execv", "execve", "fork", "forkpty"):
        monkeypatch.setattr(os, name, refuse)
    for name in BINDINGS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [_NoBindings(), *sys.meta_path])
    yield
