"""Two handles of libguestfs, one on the instant and one on the stock appliance, asked the same."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from imgtools.appliance import instant
from imgtools.appliance.probe import kvm_works
from imgtools.config import load

Way = Literal["instant", "stock"]
WAYS: tuple[Way, ...] = ("stock", "instant")
Answer = tuple[str, str, Any]
"""The call, its arguments, and what it answered."""
# Where the kernel's names of disks stand in answers.
DISK = re.compile(r"(/dev/)(sd[a-z]+)")
MEMBER = re.compile(r"(device_dev_)(sd[a-z]+)")
FORGOTTEN = re.compile(r"((?:btrfsvol:|parted: |superblock on |mkfs: xfs: )/dev/)(sd[a-z]+)")
APPLIANCE_EVENTS = 0x10 | 0x20 | 0x40 | 0x80 | 0x200


@dataclass(frozen=True, kw_only=True)
class Drive:
    """A disk to add: a file, its format, and the options of add_drive_opts.

    The guest writes to a qcow2 overlay, or to a copy of the file in its own format.
    """

    path: Path
    format: str = "raw"
    copied: bool = False
    options: dict[str, Any] = field(default_factory=dict)


class Asker:
    """Makes calls and keeps every answer, errors too."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.answers: list[Answer] = []
        # Several arrays get their numbers in the order in which udev's workers happen to finish,
        # on a stock appliance too: /dev/md127 -> /dev/<name of the array>.
        self.arrays: dict[str, str] = {}
        self.kernel = kernel_names(handle)

    def __call__(self, name: str, *args: Any, **options: Any) -> Any:
        try:
            answer = getattr(self.handle, name)(*args, **options)
        except (RuntimeError, UnicodeDecodeError) as error:  # the binding cannot show every name
            answer = f"error: {error}"
        answer = self.put_right(name, answer)
        shown = repr(args) + (repr(options) if options else "")
        self.answers.append((name, self.rename(shown), self.rename(answer)))
        return answer

    def put_right(self, call: str, answer: Any) -> Any:
        """Device names of the kernel's turned into libguestfs's, where libguestfs forgets to.

        A stock kernel probes all disks at once and names them as they come, so that these answers
        differ from one stock launch to the next.  What is sorted by them is sorted anew.
        """
        if call in ("pvs_full", "md_stat") and isinstance(answer, list):
            rows = [{k: self.own(DISK, v) for k, v in row.items()} for row in answer]
            return sorted(rows, key=repr)
        if call == "md_detail" and isinstance(answer, dict):  # keys such as device_dev_sda1_role
            return {self.own(MEMBER, key): self.own(DISK, answer[key]) for key in answer}
        if isinstance(answer, dict):
            return {self.own(FORGOTTEN, k): self.own(FORGOTTEN, v) for k, v in answer.items()}
        if isinstance(answer, list):
            return [self.own(FORGOTTEN, value) for value in answer]
        return self.own(FORGOTTEN, answer)

    def own(self, place: re.Pattern[str], value: Any) -> Any:
        """A string with libguestfs's names at ``place``, whose last group is the kernel's."""
        if not isinstance(value, str):
            return value
        return place.sub(lambda m: m[1] + self.kernel.get(m[2], m[2]), value)

    def rename(self, answer: Any) -> Any:
        """The answer with arrays called by name; lists of devices sorted then."""
        if isinstance(answer, str):
            for number, name in self.arrays.items():
                answer = answer.replace(number, name)
            return answer
        if isinstance(answer, dict):
            return {self.rename(key): self.rename(value) for key, value in answer.items()}
        if isinstance(answer, list):
            renamed = [self.rename(value) for value in answer]
            return sorted(renamed, key=repr) if renamed != answer else renamed
        return answer

    def learn_arrays(self) -> None:
        """Find the names of the arrays; old ones have none but a UUID."""
        for device in self.handle.list_md_devices():
            detail = self.handle.md_detail(device)
            self.arrays[device] = f"/dev/<{detail.get('name') or detail['uuid']}>"


def kernel_names(handle: Any) -> dict[str, str]:
    """What the kernel calls each disk: sdb -> what libguestfs calls it."""
    links = handle.debug("sh", ["ls -l /dev/disk/by-path"])
    found = {int(m[1]): m[2] for m in re.finditer(r"-scsi-0:0:(\d+):0 -> \S*/(sd[a-z]+)\b", links)}
    own = [name.removeprefix("/dev/") for name in handle.list_devices()]
    return {found[index]: name for index, name in enumerate(own)}


def accelerator() -> str:
    """TCG or KVM, as imgtools would choose."""
    import guestfs

    hypervisor = guestfs.GuestFS(python_return_dict=True).get_hv()
    return "KVM" if kvm_works(hypervisor, load())[0].works else "TCG"


def new_handle(way: Way) -> Any:
    """A handle that is not launched yet."""
    import guestfs

    handle = guestfs.GuestFS(python_return_dict=True)
    handle.set_backend("direct")
    if accelerator() == "TCG":
        handle.set_backend_settings(["force_tcg"])
    if way == "instant":
        template = instant.current(load())
        handle.set_path(str(template.folder))
        handle.set_hv(str(template.hypervisor))
    return handle


@contextmanager
def launched(
    way: Way, drives: list[Drive], folder: Path, *, verbose: bool = False
) -> Iterator[tuple[Any, list[str]]]:
    """A launched handle over overlays of ``drives``, and what it said; the images stay as they are.

    A drive without a file is a scratch disk.  The way is checked: a launch that was to be instant
    and was not is a failure of the test.
    """
    handle = new_handle(way)
    said: list[str] = []
    handle.set_event_callback(lambda *event: said.append(str(event[2])), APPLIANCE_EVENTS)
    handle.set_verbose(verbose)
    handle.set_trace(verbose)
    try:
        for index, drive in enumerate(drives):
            if drive.options.get("readonly"):
                handle.add_drive_opts(str(drive.path), format=drive.format, **drive.options)
                continue
            if drive.copied:
                image, form = folder / f"{way}-{index}.{drive.format}", drive.format
                make = ["cp", "--sparse=always", str(drive.path), str(image)]
            else:
                image, form = folder / f"{way}-{index}.qcow2", "qcow2"
                make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", drive.format]
                make += ["-b", str(drive.path), str(image)]
            subprocess.run(make, check=True)
            handle.add_drive_opts(str(image), format=form, **drive.options)
        handle.launch()
        resumed = "imgtools-instant: resumed" in "".join(said)
        assert resumed == (way == "instant"), "".join(said)
        yield handle, said
        handle.shutdown()
    finally:
        handle.close()


def scratch(folder: Path, name: str, size: int, **options: Any) -> Drive:
    """An empty raw disk of ``size`` bytes."""
    path = folder / name
    with path.open("wb") as stream:
        stream.truncate(size)
    return Drive(path=path, options=options)


def answers_of(
    way: Way, drives: list[Drive], folder: Path, script: Callable[[Asker], None]
) -> list[Answer]:
    """What the script heard on ``way``."""
    with launched(way, drives, folder) as (handle, _):
        ask = Asker(handle)
        script(ask)
    return ask.answers


def qemu_processes(cache: Path | None = None) -> set[int]:
    """The ids of all running qemu-system processes, or of those of one cache folder."""
    mark = b"" if cache is None else f"IMGTOOLS_CACHE_DIR={cache}\0".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                program = str((entry / "exe").readlink())
                ours = mark in (entry / "environ").read_bytes()
            except OSError:
                continue
            if ours and "qemu-system" in program:
                found.add(int(entry.name))
    return found
