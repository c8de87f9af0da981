"""What a search may change, how a trial is measured, and how a winner is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys_ray.base.errors import ConfigError, DataError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import Counts, FitContext
from recsys_ray.cluster.tune import Trial
from recsys_ray.config import changed, load_config
from recsys_ray.data.prepare import driver
from recsys_ray.evaluation import EvaluationSettings
from recsys_ray.models import MODELS
from recsys_ray.models.sized import sized_models
from recsys_ray.pipeline.tuned import best_yaml, check_space, start_values
from recsys_ray.recommend.config import RecommendSettings
from recsys_ray.runs.trial import TrialData, try_model
from tests.worlds import World

SPACE = {"model.regularization": {"low": 1.0, "high": 1000.0, "log": True}}


def configured(folder: Path, **sections: Any) -> Any:
    return load_config(str(World(folder, model={"name": "ease", "regularization": 100.0}, **sections).config))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, r"^tune\.space is empty; say what to search"),
        ({"model.regularisation": [1.0]}, r"^tune\.space: model\.regularisation=1\.0: .*did you mean 'regularization'"),
        ({"model.regularization": [-1.0]}, r"^tune\.space: model\.regularization=-1\.0: .*greater than 0"),
        ({"data.shards": [1, 2]}, r"^tune\.space: data\.shards can't be searched; keys of the section model can"),
        ({"model.regularization.x": [1]}, r"^tune\.space: .*regularization holds a value"),
    ],
)
def test_a_space_that_names_no_setting_is_one_line(space: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_space(configured(tmp_path, tune={"space": space}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ends", [{"low": 2, "high": 1}, {"low": 0.0, "high": 1.0, "log": True}])
def test_impossible_ranges_are_refused(ends: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tune\.space: (low=2 is not below|log needs numbers above 0)"):
        configured(tmp_path, tune={"space": {"model.regularization": ends}})


def test_the_search_starts_from_the_configuration_where_it_can(tmp_path: Path) -> None:
    assert start_values(configured(tmp_path, tune={"space": SPACE})) == {"model.regularization": 100.0}
    assert start_values(configured(tmp_path, tune={"space": {"model.regularization": [1.0, 2.0]}})) == {}


def test_the_best_is_a_configuration_that_is_compared_with_the_one_before(tmp_path: Path) -> None:
    config = configured(tmp_path, tune={"space": SPACE})
    text = best_yaml(config, Trial({"model.regularization": 7.0}, 0.25, 0, 1.0, stopped=False))
    file = tmp_path / "best.yaml"
    file.write_text(text)
    better = load_config(str(file))
    assert better.model == changed(config, {"model.regularization": 7.0}).model != config.model
    assert better.baselines()["before_tuning"] == config.chosen_model()
    assert (better.data, better.output) == (config.data, config.output) and "tune" not in yaml.safe_load(text)


def test_changed_reaches_into_lists(tmp_path: Path) -> None:
    config = changed(configured(tmp_path), {"model": {"name": "blend"}})
    other = changed(config, {"model.members.1.model.regularization": 3.0})
    assert other.chosen_model().models["ease"].regularization == 3.0  # type: ignore[attr-defined]


def trial_data(folder: Path, **split: Any) -> TrialData:
    data = {"source": "synthetic", "users": 200, "items": 60, "interactions_per_user": 10, "shards": 2, "split": split}
    config = configured(folder, data=data)
    place = Location.of(folder / "prepared")
    driver.prepare(driver.open_source(config.data, seed=0), place, seed=0)
    return TrialData(place, EvaluationSettings(k=[10], bootstrap=20), RecommendSettings())


def test_a_trial_looks_at_the_validation_part_alone(tmp_path: Path) -> None:
    data = trial_data(tmp_path, kind="random", test_ratio=0.1, valid_ratio=0.2)
    data.check()
    popular, ease = (try_model(data, MODELS[name](), FitContext()).report for name in ("popularity", "ease"))
    assert 0 < popular.metrics["ndcg@10"] < ease.metrics["ndcg@10"]
    with pytest.raises(DataError, match=r"set data\.split\.valid_ratio above 0"):
        trial_data(tmp_path / "none", kind="random", test_ratio=0.1, valid_ratio=0.0).check()


def test_defaults_follow_the_data() -> None:
    small, large = Counts(600, 9000, 80_000, 30_000_000), Counts(30_000, 41_000, 800_000, 10**8)
    options = {"attributes": True, "content": False, "networks": True}
    few, many = sized_models(small, **options), sized_models(large, **options)
    assert few["als"]["embedding_dim"] == 32 < many["als"]["embedding_dim"] == 128
    assert "slim" in few and "slim" not in many
    for section in (*few.values(), *many.values()):
        MODELS[section["name"]].model_validate({key: value for key, value in section.items() if key != "name"})
