"""Killed anywhere, a change is in the image whole or not at all (a short form of make torture)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture import Torture

pytestmark = [pytest.mark.appliance, pytest.mark.timeout(900)]


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_killed_at_any_point(image_format: str, tmp_path: Path) -> None:
    torture = Torture(tmp_path, image_format)
    for point in torture.points(50):
        torture.round(point)
    assert len(torture.tally.points) >= 50
    outcomes = torture.tally.outcomes
    # Points in every phase, and commits that were really cut in two.
    assert outcomes["begin: as before"] >= 5
    assert outcomes["work: as before"] >= 5
    assert outcomes["commit: commit finished"] >= 5
