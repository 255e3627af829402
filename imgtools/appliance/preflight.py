"""What stops an appliance from starting, found before a launch is paid for.

Each fault is one error with the command that cures it.  The rules are supermin's and libguestfs's:
where supermin 5.2 looks for a kernel (``SUPERMIN_KERNEL``, else the newest of /boot/vmlinu[xz]-*
and /lib/modules/*/vmlinuz that has its modules), and which variables name folders (guestfs(3),
ENVIRONMENT VARIABLES).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import (
    ApplianceError,
    ApplianceKernelError,
    ApplianceSpaceError,
    MissingToolError,
)
from imgtools.process import PACKAGE_OF

APPLIANCE_SPACE = 768 << 20
"""Bytes that building the appliance takes in the cache folder (it is a sparse 4 GiB file)."""
OVERLAY_SPACE = 16 << 20
"""Bytes that overlays with a replayed journal, sockets and logs take in the temporary folder."""

KERNEL_CURE = "apt-get install --no-install-recommends linux-image-amd64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The folders that an appliance uses, by libguestfs's rules."""

    temporary: Path
    cache: Path


def places(environ: Mapping[str, str] | None = None) -> Places:
    """Where overlays and the built appliance go."""
    environ = os.environ if environ is None else environ
    temporary = environ.get("LIBGUESTFS_TMPDIR") or environ.get("TMPDIR") or "/tmp"  # noqa: S108
    cache = environ.get("LIBGUESTFS_CACHEDIR") or environ.get("TMPDIR") or "/var/tmp"  # noqa: S108
    return Places(temporary=Path(temporary).absolute(), cache=Path(cache).absolute())


def check_host(hv: str, search_path: str) -> None:
    """Raise the first thing that would stop a launch.

    ``hv`` is qemu's path; ``search_path`` is libguestfs's, colon-separated.
    """
    check_qemu(hv)
    where = places()
    check_folder(where.temporary, OVERLAY_SPACE, "TMPDIR")
    kind = appliance_kind(search_path)
    if kind == "none":
        raise ApplianceError(
            f"no appliance in {search_path}",
            hint="apt-get install --reinstall libguestfs0, or unset LIBGUESTFS_PATH",
        )
    if kind == "fixed":
        return
    check_supermin()
    check_kernel()
    check_cache(where.cache)


def check_qemu(hv: str) -> None:
    """Raise MissingToolError unless ``hv`` can be run."""
    if shutil.which(hv) is None:
        name = Path(hv).name
        raise MissingToolError(
            f"the program {hv} is not installed",
            hint=f"apt-get install --no-install-recommends {PACKAGE_OF.get(name, 'qemu-system')}",
        )


def check_supermin() -> None:
    """Raise MissingToolError unless supermin is on PATH."""
    if shutil.which("supermin") is None:
        raise MissingToolError(
            "the program supermin is not installed",
            hint="apt-get install --no-install-recommends supermin",
        )


def appliance_kind(search_path: str) -> str:
    """``supermin``, ``fixed`` or ``none``: the first folder that holds one decides."""
    for folder in filter(None, search_path.split(":")):
        if (Path(folder) / "supermin.d").is_dir():
            return "supermin"
        if all((Path(folder) / name).exists() for name in ("kernel", "initrd", "root")):
            return "fixed"
    return "none"


def check_kernel(
    environ: Mapping[str, str] | None = None,
    *,
    boot: Path = Path("/boot"),
    modules: Path = Path("/lib/modules"),
) -> Path:
    """Return the kernel that supermin would take.

    Raises ApplianceKernelError if there is none, or if it may not be read (Ubuntu's are 0600).
    """
    environ = os.environ if environ is None else environ
    if named := environ.get("SUPERMIN_KERNEL"):
        kernel = Path(named)
        if not kernel.exists():
            raise ApplianceKernelError(
                f"{kernel}: no such file, but SUPERMIN_KERNEL names it",
                hint="unset SUPERMIN_KERNEL",
            )
    else:
        kernels = _kernels(boot, modules)
        if not kernels:
            raise ApplianceKernelError(
                f"no kernel with modules in {boot} or {modules}: "
                "the appliance needs one to boot (containers and WSL have none)",
                hint=KERNEL_CURE,
            )
        kernel = kernels[-1]
    if not os.access(kernel, os.R_OK):
        raise ApplianceKernelError(
            f"{kernel}: the appliance's kernel is readable by root only",
            hint=f"sudo chmod 0644 {kernel}; to keep it so: "
            f"sudo dpkg-statoverride --update --add root root 0644 {kernel}",
        )
    return kernel


def _kernels(boot: Path, modules: Path) -> list[Path]:
    """Kernels that have modules, oldest version first."""
    found: list[tuple[str, Path]] = []
    for pattern in ("vmlinuz-*", "vmlinux-*"):
        found += [(p.name.split("-", 1)[1], p) for p in _glob(boot, pattern)]
    found += [(p.parent.name, p) for p in _glob(modules, "*/vmlinuz")]
    usable = [(version, path) for version, path in found if (modules / version).is_dir()]
    return [path for version, path in sorted(usable, key=lambda pair: _version_key(pair[0]))]


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _version_key(version: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|[^\d]+", version)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def check_cache(cache: Path) -> None:
    """Raise ApplianceSpaceError if the appliance can neither be found nor be built in ``cache``."""
    folder = cache / f".guestfs-{os.geteuid()}"
    if folder.exists():
        owner = folder.stat().st_uid
        if owner != os.geteuid():
            raise ApplianceSpaceError(
                f"{folder}: belongs to uid {owner}, so libguestfs will not use it",
                hint="remove it, or set LIBGUESTFS_CACHEDIR to a folder of your own",
            )
        check_folder(folder, 0, "LIBGUESTFS_CACHEDIR")
    built = (folder / "appliance.d" / "root").exists()
    check_folder(cache, 0 if built else APPLIANCE_SPACE, "LIBGUESTFS_CACHEDIR")


def check_folder(folder: Path, needed: int, variable: str) -> int:
    """Return the free bytes of ``folder``.

    Raises ApplianceSpaceError if it is missing, not writable or has less than ``needed``.
    """
    hint = f"set {variable} to a folder with space, e.g. {variable}=/var/tmp"
    if not folder.is_dir():
        raise ApplianceSpaceError(f"{folder}: no such folder ({variable})", hint=hint)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ApplianceSpaceError(f"{folder}: may not be written ({variable})", hint=hint)
    free = os.statvfs(folder)
    if free.f_flag & os.ST_RDONLY:
        raise ApplianceSpaceError(f"{folder}: is read-only ({variable})", hint=hint)
    available = free.f_bavail * free.f_frsize
    if available < needed:
        raise ApplianceSpaceError(
            f"{folder}: {available >> 20} MiB free, {needed >> 20} MiB needed ({variable})",
            hint=hint,
        )
    return available


def folder_error(folder: Path, error: OSError) -> ApplianceSpaceError:
    """A temporary folder could not be made in ``folder``."""
    return ApplianceSpaceError(
        f"{folder}: {error.strerror} (TMPDIR)", hint="set TMPDIR to a folder with space"
    )
