"""The template's machine: the stock launch's words with the memory in a file and fixed addresses.

Built from a command line of libguestfs's own, so that what libguestfs gives its qemu (processor,
clock, devices) is what the template has.  Building and resuming must see the same machine, hence
one list of words with marks (see ``hypervisor``) for both.
"""

from __future__ import annotations

from imgtools.appliance.instant.hypervisor import FLAGS, FOLDER, GO, SHARE, SNAPSHOT, Launch
from imgtools.errors import ApplianceError

GO_NAME = "opt/org.imgtools/go"
TEMPLATE_WORD = "imgtools_template=1"
# Each device's own PCI slot: what is cold-plugged later must not move them.
_SLOTS = {
    "virtio-rng-pci,rng=rng0": "02.0",
    "virtio-scsi-pci,id=scsi": "03.0",
    "virtio-serial-pci": "04.0",
}
_ROOT_SLOT = "05.0"


def memory_size(launch: Launch) -> int:
    """The machine's memory in MiB.  Raises ApplianceError if it is not a plain number."""
    value = launch.value("-m")
    if not value.isdigit():
        raise ApplianceError(f"libguestfs asks qemu for memory in an unknown way: -m {value}")
    return int(value)


def machine_words(launch: Launch) -> list[str]:
    """qemu's words for the template's machine, without the disks, the channel and the monitor.

    The appliance's root is a virtio disk: a SCSI one would come before the guest's disks, which
    are found later, and take the name /dev/sda.
    """
    words: list[str] = []
    fixed = iter(launch.fixed)
    for option in fixed:
        if option in FLAGS:
            words.append(option)
            continue
        value = next(fixed)
        if option == "-machine":
            value += ",memory-backend=mem"
            words += ["-object", _memory_object(launch)]
        if option == "-device" and value in _SLOTS:
            value += f",addr={_SLOTS[value]}"
        words += [option, value]
    root = f"file={FOLDER}/root,format=raw,if=none,id=appliance,cache=unsafe,snapshot={SNAPSHOT}"
    return [
        *(*words, "-drive", root),
        *("-device", f"virtio-blk-pci,drive=appliance,addr={_ROOT_SLOT}"),
        *("-device", "vmgenid,guid=auto"),
        *("-fw_cfg", f"name={GO_NAME},file={GO}"),
        *("-append", " ".join([*launch.append, TEMPLATE_WORD])),
    ]


def _memory_object(launch: Launch) -> str:
    size = memory_size(launch)
    return f"memory-backend-file,id=mem,size={size}M,mem-path={FOLDER}/ram,share={SHARE}"
