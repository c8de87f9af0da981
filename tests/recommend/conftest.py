"""The small shop that tests of rules share, once for each of their files."""

from __future__ import annotations

import pytest

from recsys_ray.base.storage import Location
from recsys_ray.recommend.bundle import Bundle, open_bundle
from tests.rule_worlds import Rules, shop


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Rules:
    folder = tmp_path_factory.mktemp("shop")
    return Rules(folder, shop(folder))


@pytest.fixture(scope="module")
def bundle(rules: Rules) -> Bundle:
    return open_bundle(Location.of(rules.folder) / "models" / "item_cf-plain")
