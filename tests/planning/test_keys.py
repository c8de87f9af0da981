"""What a seed changes: that of training the fitted values alone, that of the run also the split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.here import without_ray
from tests.planning.test_plan import table_world


class Trained(NamedTuple):
    prepared: str
    model: str
    values: bytes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """By the settings given."""
    model = {"name": "als", "embedding_dim": 4, "epochs": 2}
    world = table_world(tmp_path_factory.mktemp("seeds"), model=model, training={"refit": "train+valid"})
    found = {}
    for words in ("", "training.seed=0", "training.seed=1", "seed=1", "seed=1 training.seed=0"):
        with without_ray():
            outcome = world.command("train", "data.split.kind=random", *words.split())
        assert outcome.status == 0, outcome.errors
        bundle = Path(outcome.result["path"])
        prepared = json.loads((bundle / "manifest.json").read_text())["prepared"]
        found[words] = Trained(prepared, bundle.name, (bundle / "arrays.safetensors").read_bytes())
    return found


Found = dict[str, Trained]


def test_the_seed_of_training_is_that_of_the_run_where_none_is_given(trained: Found) -> None:
    assert trained[""] == trained["training.seed=0"]


def test_the_seed_of_training_changes_what_is_fitted_and_not_the_split(trained: Found) -> None:
    plain, other = trained[""], trained["training.seed=1"]
    assert plain.prepared == other.prepared and plain.model != other.model and plain.values != other.values


def test_the_seed_of_the_run_changes_the_split_under_one_seed_of_training(trained: Found) -> None:
    apart = trained["seed=1 training.seed=0"]
    assert trained["seed=1"].prepared == apart.prepared != trained[""].prepared
    assert trained["seed=1"].values != apart.values
