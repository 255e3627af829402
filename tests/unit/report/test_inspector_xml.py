"""virt-inspector's document: its elements, its order, its schema; and never ill-formed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from imgtools.errors import UsageError
from imgtools.guest.inspection import (
    Application,
    GuestFilesystem,
    Inspection,
    Mountpoint,
    WindowsDetails,
)
from imgtools.report.inspector_xml import (
    fit,
    inspector_tree,
    inspector_xml,
    parse_document,
    schema_distro,
    xpath,
)

pytestmark = pytest.mark.unit

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parents[2] / "data" / "virt-inspector.rng"))

BASH = Application(
    name="bash",
    epoch=2,
    version="5.2",
    release="2",
    arch="amd64",
    publisher="somebody",
    source_package="bash-src",
    summary="a <shell> & more",
    description="first\nsecond",
)
GUEST = Inspection(
    root="/dev/sda1",
    type="linux",
    distro="debian",
    product_name="12.11",
    pretty_name="Debian GNU/Linux 12 (bookworm)",
    major_version=12,
    minor_version=11,
    arch="x86_64",
    hostname="lemon",
    package_format="deb",
    package_management="apt",
    osinfo="debian12",
    mountpoints=(
        Mountpoint(path="/home", device="/dev/sda3"),
        Mountpoint(path="/", device="/dev/sda1"),
        Mountpoint(path="/boot", device="/dev/sda2"),
    ),
    filesystems=(
        GuestFilesystem(device="/dev/sda2"),
        GuestFilesystem(device="/dev/sda1", type="ext4", label="root", uuid="1-2", size=9),
    ),
    applications=(BASH,),
    icon="A" * 100,
)

DOCUMENT = b"""<?xml version="1.0"?>
<operatingsystems>
  <operatingsystem>
    <root>/dev/sda1</root>
    <name>linux</name>
    <arch>x86_64</arch>
    <distro>debian</distro>
    <product_name>12.11</product_name>
    <major_version>12</major_version>
    <minor_version>11</minor_version>
    <package_format>deb</package_format>
    <package_management>apt</package_management>
    <hostname>lemon</hostname>
    <osinfo>debian12</osinfo>
    <mountpoints>
      <mountpoint dev="/dev/sda1">/</mountpoint>
      <mountpoint dev="/dev/sda2">/boot</mountpoint>
      <mountpoint dev="/dev/sda3">/home</mountpoint>
    </mountpoints>
    <filesystems>
      <filesystem dev="/dev/sda1">
        <type>ext4</type>
        <label>root</label>
        <uuid>1-2</uuid>
      </filesystem>
      <filesystem dev="/dev/sda2"/>
    </filesystems>
    <applications>
      <application>
        <name>bash</name>
        <epoch>2</epoch>
        <version>5.2</version>
        <release>2</release>
        <arch>amd64</arch>
        <source_package>bash-src</source_package>
        <summary>a &lt;shell&gt; &amp; more</summary>
        <description>first
second</description>
      </application>
    </applications>
    <icon>%s
%s</icon>
  </operatingsystem>
</operatingsystems>
""" % (b"A" * 72, b"A" * 28)


def valid(document: bytes) -> bool:
    return bool(SCHEMA.validate(etree.fromstring(document)))


def test_the_document() -> None:
    assert inspector_xml([GUEST]) == DOCUMENT
    assert valid(DOCUMENT)


def test_without_applications_and_icon() -> None:
    tree = inspector_tree([GUEST], applications=False, icon=False)
    assert tree.find(".//applications") is None
    assert tree.find(".//icon") is None
    empty = inspector_tree([dataclasses.replace(GUEST, applications=())])
    assert empty.find(".//applications") is not None


def test_rpm_says_none_as_librpm_does_and_leaves_out_what_virt_inspector_does() -> None:
    guest = dataclasses.replace(
        GUEST, distro="fedora", package_format="rpm", package_management="dnf"
    )
    (application,) = inspector_tree([guest]).iter("application")
    assert [(e.tag, e.text) for e in application] == [
        ("name", "bash"),
        ("epoch", "2"),
        ("version", "5.2"),
        ("release", "2"),
        ("arch", "amd64"),
        ("url", "(none)"),
        ("summary", "a <shell> & more"),
        ("description", "first\nsecond"),
    ]


@pytest.mark.parametrize(
    ("distro", "id_like", "package_format", "word"),
    [
        ("debian", (), "deb", "debian"),
        ("almalinux", ("rhel", "centos", "fedora"), "rpm", "redhat-based"),
        ("raspbian", ("debian",), "deb", "debian"),
        ("pop", ("ubuntu", "debian"), "deb", "ubuntu"),
        ("lemonos", ("whatever",), "rpm", "redhat-based"),
        ("lemonos", (), "", ""),
        ("", (), "", ""),
    ],
)
def test_distributions_that_the_schema_lacks(
    distro: str, id_like: tuple[str, ...], package_format: str, word: str
) -> None:
    guest = dataclasses.replace(
        GUEST, distro=distro, id_like=id_like, package_format=package_format
    )
    assert schema_distro(guest) == word
    assert valid(inspector_xml([guest]))


def test_windows() -> None:
    details = WindowsDetails(
        systemroot="/Windows",
        current_control_set="ControlSet001",
        drive_mappings=(("C", "/dev/sda2"),),
    )
    guest = dataclasses.replace(
        GUEST,
        type="windows",
        distro="windows",
        product_variant="Server",
        package_format="",
        package_management="",
        windows=details,
        applications=(Application(name="App", display_name="An App", install_path="C:\\App"),),
    )
    document = inspector_xml([guest])
    assert valid(document)
    assert b'<drive_mapping name="C">/dev/sda2</drive_mapping>' in document
    assert b"<windows_systemroot>/Windows</windows_systemroot>" in document


def test_control_characters_and_bad_utf8() -> None:
    hostile = "a\x00\x1b[2J\udcff\ud800\ufffe<&>\U0001f34b"
    assert fit(hostile) == "a\\x00\\x1b[2J\\xff\\ud800\\ufffe<&>\U0001f34b"
    guest = dataclasses.replace(
        GUEST,
        hostname=hostile,
        mountpoints=(Mountpoint(path="/" + hostile, device=hostile),),
        applications=(Application(name=hostile, version=hostile),),
    )
    document = inspector_xml([guest])
    assert valid(document)
    assert etree.fromstring(document).findtext(".//hostname") == fit(hostile)


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_no_text_makes_the_document_ill_formed(text: str) -> None:
    guest = dataclasses.replace(
        GUEST,
        hostname=text,
        product_name=text,
        filesystems=(GuestFilesystem(device=text, label=text),),
        applications=(Application(name=text or "x", description=text),),
    )
    assert valid(inspector_xml([guest]))


# --- XPath ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("//application/name/text()", ["bash"]),
        ("string(//hostname)", ["lemon"]),
        ("count(//mountpoint)", ["3"]),
        ("1 div 4", ["0.25"]),
        ("//major_version > 11", ["true"]),
        ("//filesystem/@dev", ["/dev/sda1", "/dev/sda2"]),
        ("//hostname", ["<hostname>lemon</hostname>"]),
        ("//nothing", []),
    ],
)
def test_xpath(query: str, answer: list[str]) -> None:
    assert xpath(inspector_tree([GUEST]), query) == answer
    assert xpath(parse_document(DOCUMENT), query) == answer


def test_xpath_and_xml_that_are_none() -> None:
    with pytest.raises(UsageError):
        xpath(inspector_tree([GUEST]), "//[")
    with pytest.raises(UsageError):
        parse_document(b"not xml")


def test_a_document_on_stdin_opens_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    document = f"""<!DOCTYPE x [<!ENTITY s SYSTEM "file://{tmp_path}/secret">]><x>&s;</x>"""
    assert "secret" not in "".join(xpath(parse_document(document.encode()), "string(/x)"))
