"""From arguments to guests: names, domains' disks, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgtools.domain.disks import DomainDisk
from imgtools.domain.domains import Domain
from imgtools.errors import ImageNotFoundError, NoDomainError, UsageError
from imgtools.model.disks import DiskRequest
from imgtools.workflow.selection import (
    DiskArguments,
    Target,
    _target_of,
    guest_name,
    resolve,
    select_one,
    targets,
)

pytestmark = pytest.mark.unit


def request(word: str) -> DiskRequest:
    return DiskRequest(uri=word) if "://" in word else DiskRequest(path=Path(word))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["/srv/a.img"], "a.img"),
        (["a.img", "/srv/b.img", "c"], "a.img++"),
        (["nbd://host/export"], "export"),
        (["https://host/images/x.qcow2"], "x.qcow2"),
        (["nbd://host"], "host"),
        (["https://host/"], "https://host/"),
    ],
)
def test_a_guest_is_named_as_virt_df_names_it(words: list[str], name: str) -> None:
    assert guest_name([request(word) for word in words]) == name


def test_images_together_are_one_guest() -> None:
    disks = (request("/a"), request("/b"))
    assert targets(DiskArguments(disks=disks)) == [Target(name="a+", requests=disks)]


def test_nothing_named_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="which disk"):
        targets(DiskArguments())


def test_one_guest_means_one() -> None:
    with pytest.raises(UsageError, match="reads one guest"):
        select_one(DiskArguments(domains=("a", "b")))


def _domain(*disks: DomainDisk, active: bool = False, saved: bool = False) -> Domain:
    return Domain(name="web", uuid="u-u-i-d", active=active, saved=saved, disks=disks)


def _disk(target: str, **fields: object) -> DomainDisk:
    base = {"target": target, "bus": "virtio", "device": "disk", "type": "file"}
    return DomainDisk(**{**base, **fields})  # type: ignore[arg-type]


def test_a_domains_disks_keep_format_sector_size_and_order() -> None:
    target = _target_of(
        _domain(
            _disk("vdb", path="/b", format="raw", block_size=4096), _disk("vda", uri="nbd://h"),
            active=True,
        ),
        None,
    )  # fmt: skip
    assert target == Target(
        name="web",
        uuid="u-u-i-d",
        requests=(
            DiskRequest(path=Path("/b"), format="raw", block_size=4096),
            DiskRequest(uri="nbd://h"),
        ),
        running=True,
    )


def test_a_disk_that_cannot_be_read_is_left_out_with_a_notice() -> None:
    target = _target_of(_domain(_disk("vda", path="/a"), _disk("vdb", unsupported="rbd")), None)
    assert [one.path for one in target.requests] == [Path("/a")]
    assert [notice.code for notice in target.notices] == ["domain.disk-unsupported"]
    assert "vdb is left out: rbd" in target.notices[0].message


def test_a_saved_state_and_a_remote_host_are_told() -> None:
    target = _target_of(_domain(_disk("vda", path="/a"), saved=True), "far.example")
    assert [notice.code for notice in target.notices] == ["domain.remote", "domain.saved-state"]


def test_a_domain_of_which_no_disk_can_be_read() -> None:
    target = _target_of(_domain(_disk("vda", unsupported="rbd is not supported")), None)
    with pytest.raises(NoDomainError, match="rbd is not supported"):
        resolve(target)


def test_a_remote_domains_images_are_not_here(tmp_path: Path) -> None:
    target = Target(name="web", requests=(request(f"{tmp_path}/w.img"),), remote="far.example")
    with pytest.raises(ImageNotFoundError, match=r"is on far\.example, not here") as caught:
        resolve(target)
    assert caught.value.hint is not None
    assert "nbd://far.example" in caught.value.hint
