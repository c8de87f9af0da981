"""From Python, on Ray: ``run`` is the command, its result is a model, and a fit in memory gives the same lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import recsys_ray as rr
from recsys_ray.base.errors import ConfigError
from recsys_ray.base.storage import Location
from recsys_ray.data.prepared import Prepared
from tests.api.test_face import catalogue_of, frame_of
from tests.worlds import World

pytestmark = pytest.mark.ray


def test_a_run_its_model_and_a_fit_in_memory_agree(tmp_path: Path, ray_session: Any) -> None:
    world = World(tmp_path, model={"name": "ease", "regularization": 20.0})
    result = rr.run(world.config, **{"recommend.n": 7, "data.filters": {"min_rating": 2.5}})
    published = world.published().to_pandas()
    assert published["rank"].max() == 7 and result["recommend"]["checks"]["users"] == published["user_id"].nunique()
    loaded = rr.load(tmp_path / "out").recommend()
    prepared = Prepared.open(Location.of(result["prepare"]["path"]))
    data = rr.Dataset(frame_of(prepared), items=catalogue_of(prepared), filters={"min_rating": 2.5})
    fitted = rr.EASE(regularization=20.0).fit(data).recommend(n=7)
    for lists in (loaded, fitted):
        both = lists.merge(published, on=["user_id", "rank"], suffixes=("", "_run"))
        assert len(both) == len(lists) == len(published)
        pd.testing.assert_series_equal(both["item_id"], both["item_id_run"], check_names=False)
        pd.testing.assert_series_equal(both["source"], both["source_run"], check_names=False)
        np.testing.assert_allclose(both["score"], both["score_run"], atol=1e-6)


def test_what_the_command_would_say_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"recommend\.m: unknown key"):
        rr.run(World(tmp_path).config, **{"recommend.m": 3})
