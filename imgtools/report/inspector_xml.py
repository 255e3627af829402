"""virt-inspector's XML document of inspected guests, and XPath queries on it.

Element for element what virt-inspector 1.48 writes (guestfs-tools, inspector/inspector.c), so
that its readers work unchanged: only elements it knows, in its order, and for each package
format only the fields it fills.  Text from the guest is made fit for XML: a character XML cannot
hold, or a byte that is not UTF-8, becomes ``\\xNN`` (virt-inspector writes it raw, and the
document is then not well-formed).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lxml import etree

from imgtools.errors import UsageError
from imgtools.guest.inspection import Application, Inspection

_LINE = 72  # libxml2 breaks base64 after so many characters

_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# The distributions of the schema (virt-inspector.rng), and rocky, which 1.48 writes all the same.
DISTROS = frozenset(
    (
        *("alpinelinux", "altlinux", "archlinux", "buildroot", "centos", "cirros", "coreos"),
        *("debian", "fedora", "freebsd", "freedos", "frugalware", "gentoo", "kalilinux"),
        *("kylin", "linuxmint", "mageia", "mandriva", "meego", "msdos", "neokylin", "netbsd"),
        *("openbsd", "openmandriva", "opensuse", "oraclelinux", "pardus", "pldlinux"),
        *("redhat-based", "rhel", "rocky", "scientificlinux", "slackware", "sles"),
        *("suse-based", "ttylinux", "ubuntu", "voidlinux", "windows"),
    )
)
# The nearest word of the schema for a distribution that it lacks, by what its ID_LIKE names.
_NEAREST = {
    "rhel": "redhat-based",
    "centos": "redhat-based",
    "fedora": "redhat-based",
    "suse": "suse-based",
    "opensuse": "suse-based",
    "ubuntu": "ubuntu",
    "debian": "debian",
    "arch": "archlinux",
    "alpine": "alpinelinux",
    "gentoo": "gentoo",
    "mageia": "mageia",
}
_BY_FORMAT = {"rpm": "redhat-based", "deb": "debian", "pacman": "archlinux", "apk": "alpinelinux"}

_COMMON = ("version", "release", "arch", "url")
_APPLICATION_FIELDS = {
    "deb": (*_COMMON, "source_package", "summary", "description"),
    "rpm": (*_COMMON, "summary", "description"),
    "pacman": (*_COMMON, "description"),
    "apk": (*_COMMON, "description"),
}
_ALL_FIELDS = (
    *("version", "release", "arch", "install_path", "publisher", "url"),
    *("source_package", "summary", "description"),
)
_RPM_NOTHING = "(none)"  # what librpm's formatter makes of a missing tag


def inspector_xml(
    guests: Sequence[Inspection], *, applications: bool = True, icon: bool = True
) -> bytes:
    """The document as UTF-8."""
    return document_bytes(inspector_tree(guests, applications=applications, icon=icon))


def inspector_tree(
    guests: Sequence[Inspection], *, applications: bool = True, icon: bool = True
) -> etree._Element:
    """The document's root element ``operatingsystems``."""
    top = etree.Element("operatingsystems")
    for guest in guests:
        _guest(etree.SubElement(top, "operatingsystem"), guest, applications, icon)
    return top


def document_bytes(root: etree._Element) -> bytes:
    """An element and its declaration, indented as virt-inspector does."""
    body = etree.tostring(root, encoding="UTF-8", pretty_print=True, xml_declaration=False)
    return b'<?xml version="1.0"?>\n' + body


def fit(value: str) -> str:
    r"""``value`` without what XML cannot hold."""
    return _UNFIT.sub(_escape, value)


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    if 0xDC80 <= number <= 0xDCFF:
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def _guest(parent: etree._Element, guest: Inspection, applications: bool, icon: bool) -> None:
    _text(parent, "root", guest.root)
    _text(parent, "name", "" if guest.type == "unknown" else guest.type)
    _text(parent, "arch", guest.arch)
    _text(parent, "distro", schema_distro(guest))
    _text(parent, "product_name", guest.product_name)
    _text(parent, "product_variant", guest.product_variant)
    _text(parent, "major_version", str(guest.major_version))
    _text(parent, "minor_version", str(guest.minor_version))
    _text(parent, "package_format", guest.package_format)
    _text(parent, "package_management", guest.package_management)
    if guest.windows is not None:
        _text(parent, "windows_systemroot", guest.windows.systemroot)
        _text(parent, "windows_current_control_set", guest.windows.current_control_set)
    _text(parent, "hostname", guest.hostname)
    _text(parent, "osinfo", guest.osinfo)
    _devices(parent, guest)
    if applications:
        element = etree.SubElement(parent, "applications")
        for application in guest.applications:
            _application(element, application, guest.package_format)
    if icon and guest.icon:
        _text(parent, "icon", _wrapped(guest.icon))


def _devices(parent: etree._Element, guest: Inspection) -> None:
    element = etree.SubElement(parent, "mountpoints")
    for point in sorted(guest.mountpoints, key=lambda p: (len(_raw(p.path)), _raw(p.path))):
        etree.SubElement(element, "mountpoint", dev=fit(point.device)).text = fit(point.path)
    element = etree.SubElement(parent, "filesystems")
    for filesystem in sorted(guest.filesystems, key=lambda f: _raw(f.device)):
        child = etree.SubElement(element, "filesystem", dev=fit(filesystem.device))
        _text(child, "type", filesystem.type)
        _text(child, "label", filesystem.label)
        _text(child, "uuid", filesystem.uuid)
    if guest.windows is not None and guest.windows.drive_mappings:
        element = etree.SubElement(parent, "drive_mappings")
        for letter, device in guest.windows.drive_mappings:
            etree.SubElement(element, "drive_mapping", name=fit(letter)).text = fit(device)


def _application(parent: etree._Element, application: Application, package_format: str) -> None:
    element = etree.SubElement(parent, "application")
    _text(element, "name", application.name)
    _text(element, "display_name", application.display_name)
    if application.epoch:
        _text(element, "epoch", str(application.epoch))
    nothing = _RPM_NOTHING if package_format == "rpm" else ""
    for field in _APPLICATION_FIELDS.get(package_format, _ALL_FIELDS):
        _text(element, field, getattr(application, field) or nothing)


def _text(parent: etree._Element, name: str, value: str) -> None:
    """Add an element, unless it would be empty."""
    if value:
        etree.SubElement(parent, name).text = fit(value)


def _raw(value: str) -> bytes:
    return value.encode("utf-8", errors="surrogatepass")


def _wrapped(encoded: str) -> str:
    return "\n".join(encoded[i : i + _LINE] for i in range(0, len(encoded), _LINE))


def schema_distro(guest: Inspection) -> str:
    """The distribution in the schema's words; of its nearest kin where the schema has none."""
    if not guest.distro or guest.distro in DISTROS:
        return guest.distro
    for name in guest.id_like:
        if name in _NEAREST:
            return _NEAREST[name]
    return _BY_FORMAT.get(guest.package_format, "")


# --- XPath ---------------------------------------------------------------------------------------


def parse_document(data: bytes) -> etree._Element:
    """Parse a virt-inspector document.  Raises UsageError if it is not XML."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise UsageError(f"standard input is not XML: {error}") from None


def xpath(root: etree._Element, query: str) -> list[str]:
    """Answer an XPath query: one text per node found, XML for elements.

    Raises UsageError for a query that is none.
    """
    try:
        result = root.getroottree().xpath(query)
    except etree.XPathError as error:
        raise UsageError(f"--xpath {query}: {error}") from None
    if isinstance(result, list):
        return [_node(node) for node in result]
    return [_scalar(result)]


def _node(node: Any) -> str:
    if isinstance(node, etree._Element):  # noqa: SLF001 (lxml's public class has this name)
        return etree.tostring(node, encoding="unicode", pretty_print=True, with_tail=False).rstrip()
    return str(node)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)
