"""The short form of the kill test; ``make soak`` is the long one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.soak import VICTIMS, build_world, kill_round, published_rows


@pytest.mark.timeout(400)
def test_a_killed_batch_job_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    config, expected = build_world(tmp_path)
    for victim, parts in zip(VICTIMS, (20, 5, 10), strict=True):
        facts = kill_round(config, victim, parts)
        assert facts["parts_at_kill"] >= 5
        assert published_rows(tmp_path).equals(expected), facts
        shutil.rmtree(tmp_path / "out" / "recommendations")
