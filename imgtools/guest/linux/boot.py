"""How the guest boots: kernels, boot loader, firmware.

``tree`` is the guest; ``esp`` is the tree of an EFI system partition that the guest's fstab
does not mount, or None.
"""

from __future__ import annotations

import re

from imgtools.errors import GuestOperationError
from imgtools.guest.inspection import Bootloader, Kernel
from imgtools.guest.linux.findings import Findings, decode
from imgtools.guest.tree import GuestTree
from imgtools.model.storage import Partition

MAX_KERNELS = 200
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
BIOS_BOOT_TYPE = "21686148-6449-6E6F-744E-656564454649"
ESP_MBR_ID = 0xEF

_IMAGE = re.compile(rb"(?:vmlinuz|vmlinux|bzImage|Image|zImage|uImage|kernel|linux)(?:-(.+))?\Z")
_OTHER = re.compile(rb"\.(?:hmac|sig|old|gz\.sig|dpkg-\w+|rpm\w+|xz\.p7s|conf)\Z")
_VERSION = re.compile(rb"\d[\w.+~-]*\Z")
_BZIMAGE_VERSION = re.compile(rb"[\x20-\x7e]{1,127}")

# Where a loader keeps its configuration, the likeliest first.
_LOADERS = (
    ("grub2", b"/boot/grub2/grub.cfg"),
    ("grub2", b"/boot/grub/grub.cfg"),
    ("systemd-boot", b"/boot/loader/loader.conf"),
    ("systemd-boot", b"/boot/efi/loader/loader.conf"),
    ("systemd-boot", b"/efi/loader/loader.conf"),
    ("grub-legacy", b"/boot/grub/menu.lst"),
    ("grub-legacy", b"/boot/grub/grub.conf"),
    ("extlinux", b"/boot/extlinux/extlinux.conf"),
    ("extlinux", b"/boot/extlinux.conf"),
    ("extlinux", b"/boot/syslinux/extlinux.conf"),
    ("syslinux", b"/boot/syslinux/syslinux.cfg"),
    ("syslinux", b"/boot/isolinux/isolinux.cfg"),
    ("refind", b"/boot/efi/EFI/refind/refind.conf"),
    ("limine", b"/boot/limine.conf"),
    ("u-boot", b"/boot/boot.scr"),
    ("zipl", b"/etc/zipl.conf"),
    ("lilo", b"/etc/lilo.conf"),
)


def find_kernels(tree: GuestTree, findings: Findings) -> tuple[Kernel, ...]:
    """The kernel images in /boot and beside their modules, by version."""
    modules = _modules(tree)
    boot = set(tree.listdir(b"/boot"))
    kernels = {}
    for name in sorted(boot):
        match = _IMAGE.match(name)
        path = b"/boot/" + name
        if match is None or _OTHER.search(name) or not _is_own_file(tree, path):
            continue
        version = _version(tree, findings, path, match[1] or b"")
        kernels[version] = _kernel(version, path, name, boot, modules)
        if len(kernels) >= MAX_KERNELS:
            findings.warn("kernels", f"more than {MAX_KERNELS} kernels; the rest is not listed")
            break
    for version, folder in modules.items():
        path = folder + b"/vmlinuz"
        if version not in kernels and tree.is_file(path):
            kernels[version] = _kernel(version, path, b"vmlinuz-" + version, boot, modules)
    return tuple(kernels[version] for version in sorted(kernels, key=_natural))


def _is_own_file(tree: GuestTree, path: bytes) -> bool:
    # /boot/vmlinuz is often a link to the newest; the image itself is listed once.
    try:
        return tree.lstat(path).kind == "r"
    except GuestOperationError:
        return False


def _modules(tree: GuestTree) -> dict[bytes, bytes]:
    for base in b"/usr/lib/modules", b"/lib/modules":
        names = tree.listdir(base)[:MAX_KERNELS]
        if names:
            return {name: base + b"/" + name for name in names if _VERSION.match(name)}
    return {}


def _version(tree: GuestTree, findings: Findings, path: bytes, suffix: bytes) -> bytes:
    """The version in the file's name, or else in the image's own header."""
    if _VERSION.match(suffix):
        return suffix
    inside = findings.attempt("kernels", lambda: _bzimage_version(tree, path), b"")
    return inside or suffix or b"unknown"


def _bzimage_version(tree: GuestTree, path: bytes) -> bytes:
    """The release string of an x86 bzImage (Linux Documentation/arch/x86/boot.rst)."""
    with tree.open(path) as stream:
        head = stream.read(0x210)
        if head[0x202:0x206] != b"HdrS":
            return b""
        stream.seek(int.from_bytes(head[0x20E:0x210], "little") + 0x200)
        match = _BZIMAGE_VERSION.match(stream.read(128))
    return match[0].split(b" ", 1)[0] if match else b""


def _kernel(
    version: bytes, path: bytes, name: bytes, boot: set[bytes], modules: dict[bytes, bytes]
) -> Kernel:
    flavour = name.partition(b"-")[2]
    candidates = [
        pattern.replace(b"@", word)
        for word in (version, flavour)
        if word
        for pattern in (b"initrd.img-@", b"initramfs-@.img", b"initrd-@", b"initramfs-@")
    ]
    initramfs = next((b"/boot/" + c for c in candidates if c in boot), b"")
    folder = modules.get(version, b"")
    return Kernel(
        version=decode(version),
        path=decode(path),
        initramfs=decode(initramfs),
        modules=decode(folder),
    )


def _natural(version: bytes) -> list[tuple[int, bytes]]:
    """Sort key in which 6.10 follows 6.9."""
    parts = re.findall(rb"\d{1,18}|[^\d]+", version[:256])
    return [(int(p), b"") if p.isdigit() else (-1, p) for p in parts]


def find_bootloader(tree: GuestTree, esp: GuestTree | None) -> Bootloader | None:
    """The boot loader whose configuration is there."""
    for name, path in _LOADERS:
        if tree.is_file(path):
            return Bootloader(type=name, config=decode(path))
    for base in b"/boot/efi", b"/efi":
        if config := _grub_on_esp(tree, base):
            return Bootloader(type="grub2", config=decode(config))
    if esp is not None:
        if esp.is_file(b"/loader/loader.conf"):
            return Bootloader(type="systemd-boot", config="ESP:/loader/loader.conf")
        if config := _grub_on_esp(esp, b""):
            return Bootloader(type="grub2", config="ESP:" + decode(config))
    return None


def _grub_on_esp(tree: GuestTree, base: bytes) -> bytes:
    for folder in _efi_folders(tree, base):
        for name in tree.listdir(folder):
            if name.lower() == b"grub.cfg":
                return folder + b"/" + name
    return b""


def _efi_folders(tree: GuestTree, base: bytes) -> list[bytes]:
    """The vendors' folders below EFI, whose name FAT may hold in any case."""
    tops = [base + b"/" + name for name in tree.listdir(base or b"/") if name.lower() == b"efi"]
    return [top + b"/" + name for top in tops[:2] for name in tree.listdir(top)[:64]]


def find_firmware(
    tree: GuestTree, esp: GuestTree | None, partitions: list[Partition], loader: Bootloader | None
) -> tuple[str, ...]:
    """What firmware can boot the guest: ``bios``, ``uefi``, both or none that we see."""
    trees = [(esp, b"")] if esp is not None else []
    trees += [(tree, base) for base in (b"/boot/efi", b"/efi", b"/boot")]
    uefi = any(_has_efi_program(where, base) for where, base in trees)
    bios = any(p.gpt_type == BIOS_BOOT_TYPE for p in partitions)
    bios = bios or any(p.mbr_id is not None and p.bootable for p in partitions)
    bios = bios or tree.is_dir(b"/boot/grub/i386-pc") or tree.is_dir(b"/boot/grub2/i386-pc")
    # A loader of the BIOS age, or any loader where there is no EFI program to start it.
    bios = bios or (loader is not None and not uefi and loader.type in _BIOS_LOADERS)
    return tuple(name for name, there in (("bios", bios), ("uefi", uefi)) if there)


_BIOS_LOADERS = frozenset(("grub2", "grub-legacy", "extlinux", "syslinux", "lilo"))


def _has_efi_program(tree: GuestTree, base: bytes) -> bool:
    return any(
        name.lower().endswith(b".efi")
        for folder in _efi_folders(tree, base)
        for name in tree.listdir(folder)
    )


def is_esp(partition: Partition) -> bool:
    """True for an EFI system partition."""
    return partition.gpt_type == ESP_TYPE or partition.mbr_id == ESP_MBR_ID
