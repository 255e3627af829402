"""Templates on disk: where they lie, what they depend on, whether one may be used.

``CACHE/instant/`` (0700) holds one folder a template, named after all that is known of it before a
launch: memory size, accelerator, and a digest of `identity`.  A template is never edited: it is
written elsewhere, renamed into place and removed as a whole.  Facts that come later (failures, a
look at the package database that found nothing new) are small files beside it.

The RAM file is a kernel's memory and the root a file system that runs as root in the appliance:
whoever may write them owns every appliance that is resumed from them.  Hence a folder that is not
ours alone is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgtools.appliance import preflight
from imgtools.appliance.instant import packages
from imgtools.appliance.instant.hypervisor import NotOursError, check_files
from imgtools.config import Config
from imgtools.errors import NoTemplateError, RefusedError

RECORD = "template.json"
FORMAT = 1
MAX_FAILURES = 2
SOURCES = ("guest/helper.c", "guest/init.sh", "hypervisor.py", "machine.py", "build.py")
_HERE = Path(__file__).parent

Stat = list[str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template on disk; ``record`` is what its template.json holds."""

    folder: Path
    record: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def hypervisor(self) -> Path:
        """The program to give to ``set_hv``."""
        return self.folder / "qemu"

    @property
    def faster(self) -> bool:
        """Whether resuming was faster than booting when the template was made."""
        stock = self.record["seconds"].get("stock")
        return stock is None or float(self.record["seconds"]["instant"]) < float(stock)


def instant_folder(config: Config) -> Path:
    """Where templates live (not made here)."""
    return config.cache_path() / "instant"


def check_folder(folder: Path) -> None:
    """Raise RefusedError unless ``folder`` is a folder of ours that no one else may change."""
    found = folder.lstat()
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not mine or found.st_mode & 0o022:
        raise RefusedError(
            f"{folder}: others may change it, so nothing in it is resumed",
            hint=f"rm -rf {folder}, or chmod go-w and chown it to uid {os.geteuid()}",
        )


def file_stat(path: Path) -> Stat:
    """Path, size and time of a file that a template depends on; -1 if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return [str(path), -1, -1]
    return [str(path), found.st_size, found.st_mtime_ns]


def sources_digest() -> str:
    """A digest of our own part in a template."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()


def identity(
    *, qemu: str, search_path: str, library: str, memory: int, accelerator: str
) -> dict[str, Any]:
    """Everything that a template depends on and that is cheap to ask.

    ``qemu`` and ``search_path`` are libguestfs's, ``library`` its version, ``memory`` MiB,
    ``accelerator`` ``TCG`` or ``KVM``.  guestfsd and the list of packages are files of supermin's
    folder.  Raises ApplianceKernelError if there is no kernel.
    """
    supermin = supermin_folder(search_path)
    kernel = preflight.check_kernel()
    modules = Path("/lib/modules") / kernel.name.partition("-")[2] / "modules.dep"
    binary = Path(shutil.which(qemu) or qemu).resolve()
    return {
        "format": FORMAT,
        "imgtools": sources_digest(),
        "machine": platform.machine(),
        "qemu": file_stat(binary),
        "libguestfs": library,
        "supermin": [file_stat(path) for path in sorted(supermin.iterdir())],
        "kernel": [file_stat(kernel), file_stat(modules)],
        "memory": memory,
        "accelerator": accelerator,
        # Under TCG the guest's processor does not depend on the host's.
        "processor": _processor() if accelerator == "KVM" else "",
    }


def supermin_folder(search_path: str) -> Path:
    """libguestfs's supermin.d.  Raises NoTemplateError if it is not what libguestfs would use."""
    for folder in filter(None, search_path.split(":")):
        if (Path(folder) / "supermin.d").is_dir():
            return Path(folder) / "supermin.d"
        if (Path(folder) / "README.fixed").exists():
            break
    raise NoTemplateError("libguestfs does not use a supermin appliance here")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    kept = [line for line in lines.splitlines() if line.startswith(("model", "flags", "vendor"))]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()


def template_name(facts: dict[str, Any]) -> str:
    """The name of the template's folder for these facts."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{facts['accelerator'].lower()}-{facts['memory']}-{digest[:16]}"


def read_template(folder: Path) -> Template:
    """Return the template in ``folder``.  Raises NoTemplateError if there is none, or a bad one."""
    try:
        check_folder(folder)
        record = json.loads((folder / RECORD).read_bytes())
        check_files(str(folder), record)
        if not {"identity", "firmware", "packages", "seconds", "shape"} <= record.keys():
            raise NoTemplateError(f"{folder / RECORD}: incomplete")
        return Template(folder=folder, record=record)
    except FileNotFoundError as error:
        raise NoTemplateError("there is no template for this host yet") from error
    except NotOursError as error:
        raise NoTemplateError(f"{folder}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoTemplateError(f"{folder}: its record cannot be read ({error})") from error


def find(config: Config, facts: dict[str, Any]) -> Template:
    """Return the template for ``facts``.

    Raises NoTemplateError if there is none that fits, RefusedError if others may write its folder.
    """
    parent = instant_folder(config)
    with contextlib.suppress(FileNotFoundError):
        check_folder(parent)
    template = read_template(parent / template_name(facts))
    check_host(template)
    return template


def check_host(template: Template) -> None:
    """Raise NoTemplateError if what the template was built from has changed on this host."""
    record = template.record
    for path, size, mtime in record["firmware"]:
        if file_stat(Path(path)) != [path, size, mtime]:
            raise NoTemplateError(f"{path} has changed since the template was built")
    seen = _beside(template.folder, "packages")
    database = packages.database_stat()
    if database != record["packages"]["database"] and database != _read_json(seen):
        if packages.digest(record["packages"]["names"]) != record["packages"]["digest"]:
            raise NoTemplateError(
                "packages of the appliance were upgraded since the template was built"
            )
        _write_json(seen, database)


# --- failures ----------------------------------------------------------------------------------


def note_failure(template: Template, reason: str) -> bool:
    """Count a launch that a stock one had to repeat; True if the template was set aside for it."""
    path = _beside(template.folder, "failures")
    reasons = [*(_read_json(path) or []), reason[:300]]
    if len(reasons) < MAX_FAILURES:
        _write_json(path, reasons)
        return False
    with contextlib.suppress(OSError):
        aside = template.folder.with_name(f"bad-{template.name}")
        shutil.rmtree(aside, ignore_errors=True)
        template.folder.rename(aside)
        _write_json(_beside(aside, "failures"), reasons)
        path.unlink(missing_ok=True)
    return True


def note_success(template: Template) -> None:
    """A launch worked: failures count only in a row."""
    _beside(template.folder, "failures").unlink(missing_ok=True)


def failures(folder: Path) -> list[str]:
    """Why the last launches of a template failed."""
    found = _read_json(_beside(folder, "failures"))
    return [str(reason) for reason in found] if isinstance(found, list) else []


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f"{folder.name}.{kind}")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _write_json(path: Path, value: Any) -> None:
    with contextlib.suppress(OSError):
        temporary = path.with_name(f".{path.name}-{os.getpid()}")
        temporary.write_text(json.dumps(value), encoding="utf-8")
        temporary.replace(path)


# --- all of them -------------------------------------------------------------------------------


def folders(config: Config) -> Iterator[Path]:
    """Every folder of a template, good, stale or set aside."""
    parent = instant_folder(config)
    if parent.is_dir():
        yield from sorted(path for path in parent.iterdir() if path.is_dir())


def size_on_disk(folder: Path) -> int:
    """Bytes that a template takes."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def remove(folder: Path) -> int:
    """Remove a template with what lies beside it; the bytes that this freed.

    A launch that has opened it goes on: its files live until they are closed.
    """
    freed = size_on_disk(folder)
    shutil.rmtree(folder)
    for path in folder.parent.glob(f"{folder.name}.*"):
        path.unlink()
    return freed
