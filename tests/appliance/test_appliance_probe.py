"""Finding out whether KVM works, by really running a guest; and what preflight finds."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from imgtools.appliance.probe import CACHE_NAME, kvm_works, try_kvm
from imgtools.config import Config

pytestmark = pytest.mark.appliance

QEMU = shutil.which("qemu-system-x86_64") or "qemu-system-x86_64"


def counting_qemu(folder: Path, then: str) -> tuple[Path, Path]:
    """A qemu that notes each start and then does as told."""
    script, log = folder / "qemu", folder / "starts"
    script.write_text(f"#!/bin/sh\necho x >> {log}\n{then}\n")
    script.chmod(0o755)
    return script, log


def test_a_guest_that_runs_is_seen_as_working() -> None:
    assert try_kvm(QEMU, accel="tcg").works


def test_a_qemu_that_aborts_is_seen_as_broken_with_its_reason(tmp_path: Path) -> None:
    line = "qemu: error: failed to set MSR 0x10a to 0x69"
    script, _ = counting_qemu(tmp_path, f"echo '{line}' >&2; kill -ABRT $$")
    answer = try_kvm(str(script))
    assert not answer.works
    assert answer.reason == "failed to set MSR 0x10a to 0x69"


def test_a_guest_that_never_runs_is_seen_as_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgtools.appliance.probe.PROBE_TIMEOUT", 0.5)
    script, _ = counting_qemu(tmp_path, "sleep 60")
    answer = try_kvm(str(script))
    assert not answer.works
    assert "far too slowly" in answer.reason


def test_the_answer_agrees_with_a_kernel_booted_under_kvm() -> None:
    """A kernel without a root panics within seconds, unless KVM is broken or emulates all."""
    kernel = max(Path("/boot").glob("vmlinuz-*"))
    argv = [QEMU, "-nodefaults", "-display", "none", "-machine", "accel=kvm", "-cpu", "max"]
    argv += ["-m", "256", "-no-reboot", "-kernel", str(kernel), "-append", "panic=-1"]
    try:
        came_up = subprocess.run(argv, capture_output=True, check=False, timeout=25).returncode == 0
    except subprocess.TimeoutExpired:
        came_up = False
    assert try_kvm(QEMU).works == came_up


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path, Config]:
    """A qemu whose KVM is broken, on a device that exists, and a cache of the test's own."""
    monkeypatch.setattr("imgtools.appliance.probe._KVM", Path("/dev/null"))
    script, log = counting_qemu(tmp_path, "exit 1")
    return str(script), log, Config(cache_dir=str(tmp_path / "cache"))


def test_the_answer_is_remembered_and_told_once(broken: tuple[str, Path, Config]) -> None:
    hv, log, config = broken
    first, told = kvm_works(hv, config)
    again, silent = kvm_works(hv, config)
    assert (first.works, again.works, again.remembered) == (False, False, True)
    assert [notice.code for notice in told] == ["appliance.kvm-broken"]
    assert "\n" not in told[0].message
    assert CACHE_NAME in told[0].message
    assert silent == []
    assert log.read_text() == "x\n"
    cache = config.cache_path()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert [path.name for path in cache.iterdir()] == [CACHE_NAME]


def test_another_qemu_is_asked_anew(broken: tuple[str, Path, Config]) -> None:
    hv, log, config = broken
    kvm_works(hv, config)
    os.utime(hv, (1, 1))
    kvm_works(hv, config)
    assert log.read_text() == "x\nx\n"
    kvm_works(hv, config, fresh=True)
    assert log.read_text() == "x\nx\nx\n"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": 1}', b"\xff" * 100])
def test_a_damaged_memory_costs_only_the_memory(
    content: bytes, broken: tuple[str, Path, Config]
) -> None:
    hv, _, config = broken
    config.cache_path().mkdir()
    (config.cache_path() / CACHE_NAME).write_bytes(content)
    assert not kvm_works(hv, config)[0].remembered
    assert json.loads((config.cache_path() / CACHE_NAME).read_bytes())["works"] is False
    assert kvm_works(hv, config)[0].remembered


def test_a_cache_that_cannot_be_written_costs_only_the_memory(
    broken: tuple[str, Path, Config], tmp_path: Path
) -> None:
    hv, _, _ = broken
    (tmp_path / "file").write_text("in the way")
    config = Config(cache_dir=str(tmp_path / "file" / "cache"))
    answer, told = kvm_works(hv, config)
    assert not answer.works
    assert "remembered" not in told[0].message


def test_an_unreadable_kernel_names_the_cure(tmp_path: Path) -> None:
    """As Ubuntu's kernels are; root reads anything, so another user asks."""
    (tmp_path / "boot").mkdir()
    (tmp_path / "modules" / "6.1.0").mkdir(parents=True)
    kernel = tmp_path / "boot" / "vmlinuz-6.1.0"
    kernel.write_bytes(b"kernel")
    kernel.chmod(0o600)
    program = (
        "import os, sys; from pathlib import Path\n"
        "from imgtools.appliance.preflight import check_kernel\n"
        "from imgtools.errors import ApplianceKernelError\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: check_kernel({}, boot=Path(sys.argv[1]), modules=Path(sys.argv[2]))\n"
        "except ApplianceKernelError as error: print(error.message, '|', error.hint)\n"
    )
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", program, str(kernel.parent), str(tmp_path / "modules")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "readable by root only" in done.stdout, done.stderr
    assert f"sudo chmod 0644 {kernel}" in done.stdout
