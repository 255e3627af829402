"""The program that libguestfs starts as its qemu: resumes a template, or is the real qemu.

Given to libguestfs by ``set_hv``; it lies in a template's folder beside ``template.json``, runs
under ``python -IS`` with nothing but the standard library, and always ends by ``exec``, so that
pid, signals and standard streams are what libguestfs expects.  A question about qemu, and a launch
that differs in anything from what the template was made for, goes to the real qemu unchanged.  Of
a launch only the disks, the channel's socket, the verbosity and the terminal may differ.

How a machine is resumed (qemu 7.2, docs/devel/migration.rst, qapi/migration.json): the memory is
the template's RAM file mapped copy-on-write (``share=off``), the devices come from the state file
by ``migrate-incoming`` with the capability ``x-ignore-shared``, which only QMP can set: the
commands are written ahead into one end of a socket pair whose other end is qemu's monitor.  Disks
are plugged in cold although the saved machine had none: a device without a section in the stream
keeps its reset state, and the guest looks for its disks after it has resumed.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
import zlib

MARK = "imgtools-instant: "
"""Begins every line for the one who launched, here and in the guest."""
FLAGS = frozenset(("-no-user-config", "-nodefaults", "-no-reboot", "-no-hpet"))
FIXED = frozenset(
    ("-global", "-display", "-machine", "-cpu", "-m", "-rtc", "-kernel", "-initrd", "-serial")
)
DEVICES = frozenset(("virtio-rng-pci,rng=rng0", "virtio-scsi-pci,id=scsi", "virtio-serial-pci"))
CHANNEL = "virtserialport,chardev=channel0,name=org.libguestfs.channel.0"
RNG = "rng-random,filename=/dev/urandom,id=rng0"
ROOT_DEVICE = "scsi-hd,drive=appliance"
DISK_DEVICE = re.compile(
    r"scsi-hd,drive=(hd[0-9]+)(,(?:serial|(?:physical|logical)_block_size)=(?:[^,]|,,)*)*"
)
# Of the kernel's command line: words that may differ between the template and a launch.
FREE_WORDS = re.compile(r"lpj=[0-9]+|TERM=\S*|quiet|guestfs_verbose=1")
VERBOSE = "guestfs_verbose=1"
FOLDER, SHARE, SNAPSHOT, GO = "@FOLDER@", "@SHARE@", "@SNAPSHOT@", "@GO@"
MARKS = re.compile(f"{FOLDER}|{SHARE}|{SNAPSHOT}|{GO}")
"""Marks in a template's words: its folder, what resuming does otherwise than building, the go
file."""
GO_SIZE = 4096
MAX_DISKS = 255


class NotOursError(Exception):
    """The command line holds something that the template was not made for."""


class Launch:
    """A launch command line of libguestfs's direct backend, taken apart.

    ``fixed`` is what must equal the template's: every option that shapes the machine, in its
    order.  ``disks`` are pairs of -drive and -device values in libguestfs's order; ``extra`` are
    -blockdev options (the overlays' backing nodes).
    """

    def __init__(self) -> None:
        self.fixed: list[str] = []
        self.disks: list[tuple[str, str]] = []
        self.extra: list[str] = []
        self.channel = ""
        self.root = ""
        self.append: list[str] = []

    @property
    def labels(self) -> bool:
        """Whether any disk has a label, which libguestfs makes a serial number of."""
        return any(",serial=" in device for _, device in self.disks)

    @property
    def verbose(self) -> bool:
        """Whether the daemon must be verbose."""
        return VERBOSE in self.append

    def value(self, option: str) -> str:
        """The value of an option that stands among ``fixed`` once."""
        return self.fixed[self.fixed.index(option) + 1]


def parse(argv: list[str]) -> Launch:
    """Take a launch command line (without the program) apart.

    Raises NotOursError, naming the first thing that is not known for certain.
    """
    launch = Launch()
    drives: dict[str, str] = {}
    words = iter(argv)
    for option in words:
        if option in FLAGS:
            launch.fixed.append(option)
            continue
        value = next(words, None)
        if value is None:
            raise NotOursError(f"{option} has no value")
        if option in FIXED or (option == "-object" and value == RNG):
            launch.fixed += [option, value]
        elif option == "-blockdev":
            launch.extra += [option, value]
        elif option == "-drive":
            drives[_drive_id(value)] = value
        elif option == "-device":
            _add_device(launch, drives, value)
        elif option == "-chardev" and value.endswith(",id=channel0"):
            launch.channel = value
        elif option == "-append":
            launch.append = value.split()
        else:
            raise NotOursError(f"{option} {value}")
    if not launch.channel or not launch.root or not launch.append or drives:
        raise NotOursError("no channel, no appliance or a drive without a device")
    if len(launch.disks) > MAX_DISKS:
        raise NotOursError(f"{len(launch.disks)} disks")
    return launch


def _drive_id(value: str) -> str:
    # libguestfs doubles the commas of names, so that an option never begins within one.
    found = re.search(r"(?<!,),(?:,,)*id=(hd[0-9]+|appliance)(?=,|$)", value)
    if found is None:
        raise NotOursError(f"-drive {value}")
    return found[1]


def _add_device(launch: Launch, drives: dict[str, str], value: str) -> None:
    if value == ROOT_DEVICE and "appliance" in drives:
        launch.root = drives.pop("appliance")
    elif value in DEVICES or value == CHANNEL:
        launch.fixed += ["-device", value]
    elif (disk := DISK_DEVICE.fullmatch(value)) and disk[1] in drives:
        launch.disks.append((drives.pop(disk[1]), value))
    else:
        raise NotOursError(f"-device {value}")


def shape(launch: Launch, folder: str) -> dict[str, list[str]]:
    """What must be the same for a launch and for the template in ``folder`` to fit.

    ``graphics=off`` comes with a verbose launch: it makes the firmware talk to the serial port.
    """
    machine = [word.removesuffix(",graphics=off") for word in launch.fixed]
    return {
        "machine": [word.replace(folder, FOLDER) for word in machine],
        "appliance": [launch.root.replace(folder, FOLDER)],
        "kernel command line": [word for word in launch.append if not FREE_WORDS.fullmatch(word)],
    }


def check(launch: Launch, template: dict[str, object], folder: str) -> None:
    """Raise NotOursError unless the launch fits the template that ``template.json`` describes."""
    wanted = template["shape"]
    assert isinstance(wanted, dict)
    for part, words in shape(launch, folder).items():
        if words != wanted[part]:
            raise NotOursError(f"another {part} than the template's")


def check_files(folder: str, template: dict[str, object]) -> None:
    """Raise NotOursError if a file of the template is not what was built.

    By sizes and times (qemu would lengthen a shortened RAM file and run zeros), and the device
    state, which is small and which qemu takes as it comes, by its checksum.
    """
    files = template["files"]
    assert isinstance(files, dict)
    for name, (size, mtime) in files.items():
        try:
            found = os.stat(os.path.join(folder, name))
        except OSError as error:
            raise NotOursError(f"{name}: {error.strerror}") from None
        if (found.st_size, found.st_mtime_ns) != (size, mtime):
            raise NotOursError(f"{name} was changed after it was built")
    with open(os.path.join(folder, "state"), "rb") as stream:
        if zlib.crc32(stream.read()) != template["state_crc32"]:
            raise NotOursError("state was changed after it was built")


def resume_words(launch: Launch, machine: list[str], folder: str) -> list[str]:
    """Return qemu's words for resuming, and leave the descriptors that they name open.

    ``machine`` are the template's words with their marks.
    """
    go = go_line(launch, seed=os.urandom(64).hex(), now=time.time())
    go_file = _memory_file("go", go)
    state = os.open(os.path.join(folder, "state"), os.O_RDONLY)
    os.set_inheritable(state, True)
    monitor, mouth = socket.socketpair()
    for end in (monitor, mouth):  # ours stays open in qemu, so that the monitor never sees an end
        end.set_inheritable(True)
    mouth.sendall(_commands(state))
    words = fill(machine, folder=folder, resume=True, go=f"/dev/fd/{go_file}")
    words += [*launch.extra, "-chardev", launch.channel]
    for number, (drive, device) in enumerate(launch.disks):
        place = f"bus=scsi.0,channel=0,scsi-id={number},lun=0"
        words += ["-drive", drive, "-device", f"{device},{place}"]
    words += ["-chardev", f"socket,id=imgtools,fd={monitor.detach()}"]
    words += ["-mon", "chardev=imgtools,mode=control", "-incoming", "defer"]
    mouth.detach()
    return words


def go_line(launch: Launch, *, seed: str, now: float) -> bytes:
    """What the guest is told, padded to the size that the saved machine knows."""
    text = (
        f"go disks={len(launch.disks)} labels={int(launch.labels)} "
        f"verbose={int(launch.verbose)} time={now:.6f} seed={seed} \n"
    )
    return text.encode("ascii").ljust(GO_SIZE, b"\0")


def fill(machine: list[str], *, folder: str, resume: bool, go: str) -> list[str]:
    """Put values in the place of the marks.

    Resuming changes neither the RAM file nor the root: both are copied on write.
    """
    share, snapshot = ("off", "on") if resume else ("on", "off")
    values = {FOLDER: folder, SHARE: share, SNAPSHOT: snapshot, GO: go}
    return [MARKS.sub(lambda found: values[found[0]], word) for word in machine]


def _memory_file(name: str, content: bytes) -> int:
    descriptor = os.memfd_create(name, 0)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _commands(state: int) -> bytes:
    capability = {"capability": "x-ignore-shared", "state": True}
    commands: list[dict[str, object]] = [
        {"execute": "qmp_capabilities"},
        {"execute": "migrate-set-capabilities", "arguments": {"capabilities": [capability]}},
        {"execute": "migrate-incoming", "arguments": {"uri": f"fd:{state}"}},
    ]
    return "".join(json.dumps(command) + "\n" for command in commands).encode()


def main(argv: list[str]) -> None:
    """Become qemu."""
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "template.json"), "rb") as stream:
        template = json.load(stream)
    words = argv
    if "-append" in argv:  # a launch, and not a question about qemu
        try:
            launch = parse(argv)
            check(launch, template, folder)
            check_files(folder, template)
            words = resume_words(launch, template["machine"], folder)
        except NotOursError as error:
            print(f"{MARK}not resumed: {error}", file=sys.stderr, flush=True)
    os.execv(template["qemu"], [template["qemu"], *words])


if __name__ == "__main__":
    main(sys.argv[1:])
