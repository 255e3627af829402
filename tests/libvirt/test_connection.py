"""A libvirt connection and its errors; the built-in test driver needs no daemon."""

from __future__ import annotations

import pytest

from imgtools.domain.connection import check, open_connection
from imgtools.domain.domains import find_domain, list_domains
from imgtools.errors import LibvirtError, NoDomainError

pytestmark = pytest.mark.libvirt

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"


def test_check_is_one_line() -> None:
    assert check("test:///default").startswith("test:///default, libvirt ")
    assert check("test:///default").endswith("1 domain")


def test_a_domain_is_found_by_name_and_by_uuid() -> None:
    with open_connection("test:///default") as connection:
        by_name = find_domain(connection, "test")
        assert by_name == find_domain(connection, UUID) == find_domain(connection, UUID.upper())
        assert list_domains(connection) == [by_name]
    assert (by_name.name, by_name.uuid, by_name.active) == ("test", UUID, True)
    assert [disk.path for disk in by_name.disks] == ["/guest/diskimage1"]


@pytest.mark.parametrize(
    ("name", "hint"), [("tst", "did you mean: test?"), ("qqqqqq", "known: test")]
)
def test_no_such_domain_names_those_there_are(name: str, hint: str) -> None:
    with (
        open_connection("test:///default") as connection,
        pytest.raises(NoDomainError, match="no such domain") as caught,
    ):
        find_domain(connection, name)
    assert caught.value.hint == hint


def test_a_dead_daemon_is_one_error_with_a_cure_and_libvirt_prints_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with (
        pytest.raises(LibvirtError) as caught,
        open_connection("qemu+unix:///system?socket=/no/such/socket"),
    ):
        pass
    assert caught.value.hint is not None
    assert "systemctl start libvirtd" in caught.value.hint
    assert capfd.readouterr().err == ""


def test_a_uri_of_no_driver_is_one_error() -> None:
    with pytest.raises(LibvirtError), open_connection("nonsense"):
        pass
