"""What ``imgtools doctor`` asks of this room: one fact each, or the error with its cure."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgtools.appliance import instant, preflight
from imgtools.appliance.launch import Appliance, Way
from imgtools.appliance.library import open_handle
from imgtools.appliance.probe import KvmAnswer, kvm_works
from imgtools.config import Config
from imgtools.model.disks import Disk, DiskRequest, ImageLayer
from imgtools.process import run

_SCRATCH = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchFacts:
    """A launch that worked: how long it took, and with what."""

    seconds: float
    backend: str
    accelerator: str


def binding() -> str:
    """The version of libguestfs behind its binding.  Raises MissingBindingError."""
    version = _handle().version()
    return f"{version['major']}.{version['minor']}.{version['release']}"


def hypervisor() -> str:
    """The path and version of the qemu that the appliance runs in.  Raises MissingToolError."""
    hv = _hypervisor_path()
    preflight.check_qemu(hv)
    words = run([hv, "--version"]).stdout.decode(errors="replace").split("\n")[0].split()
    return f"{hv}, {words[3] if len(words) > 3 else 'unknown version'}"


def kernel() -> str:
    """The kernel that the appliance boots.  Raises ApplianceKernelError, ApplianceError."""
    path = os.environ.get("LIBGUESTFS_PATH") or _search_path()
    if preflight.appliance_kind(path) == "fixed":
        return f"fixed appliance in {path}"
    return str(preflight.check_kernel())


def supermin() -> str:
    """Raises MissingToolError unless supermin can be run."""
    preflight.check_supermin()
    # It makes a temporary folder even for that, and a bad TMPDIR has a line of its own.
    return (
        run(["supermin", "--version"], env={"TMPDIR": "/var/tmp"})  # noqa: S108
        .stdout.decode(errors="replace")
        .strip()
    )


def kvm(config: Config) -> KvmAnswer:
    """Whether KVM works, tried now."""
    return kvm_works(_hypervisor_path(), config, fresh=True)[0]


def temporary_space() -> str:
    """The folder for overlays and its free space.  Raises ApplianceSpaceError."""
    folder = preflight.places().temporary
    free = preflight.check_folder(folder, preflight.OVERLAY_SPACE, "TMPDIR")
    return f"{folder}, {free >> 20} MiB free"


def cache_space() -> str:
    """The folder for the built appliance and its free space.  Raises ApplianceSpaceError."""
    folder = preflight.places().cache
    preflight.check_cache(folder)
    return f"{folder}, {preflight.check_folder(folder, 0, 'LIBGUESTFS_CACHEDIR') >> 20} MiB free"


def launch(config: Config, way: Way = "stock") -> LaunchFacts:
    """Start a real appliance on an empty disk and end it, in the ``way`` of `Appliance`.

    Raises ApplianceError and its kin.
    """
    with tempfile.TemporaryDirectory(prefix="imgtools-doctor-") as folder:
        image = Path(folder) / "empty"
        with image.open("wb") as stream:
            stream.truncate(_SCRATCH)
        layer = ImageLayer(path=image, format="raw", virtual_size=_SCRATCH)
        disk = Disk(request=DiskRequest(path=image, format="raw"), layers=(layer,))
        started = time.monotonic()
        appliance = Appliance([disk], config, way)
        try:
            return LaunchFacts(
                seconds=time.monotonic() - started,
                backend=appliance.backend,
                accelerator=appliance.accelerator,
            )
        finally:
            appliance.close()


def instant_appliance(config: Config, *, try_it: bool) -> str:
    """The template that a launch resumes, and how fast that is if it is to be tried.

    Raises NoTemplateError, RefusedError, ApplianceError and its kin.
    """
    template = instant.current(config)
    if not try_it:
        return f"template {template.name}"
    facts = launch(config, template)
    return f"resumed in {facts.seconds:.1f} s (template {template.name})"


def _handle() -> Any:
    return open_handle()


def _hypervisor_path() -> str:
    return str(_handle().get_hv())


def _search_path() -> str:
    return str(_handle().get_path())
