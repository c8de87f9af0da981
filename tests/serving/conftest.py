"""The published run that tests of the service share, once for each of their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving_worlds import prepared_world, publish_run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One published item-CF run; tests keep what users send in folders of their own."""
    folder = tmp_path_factory.mktemp("world")
    publish_run(folder, prepared_world(folder))
    return folder
