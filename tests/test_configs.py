"""Every shipped configuration parses; every mistake in one is a line that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys_ray.base.errors import ConfigError
from recsys_ray.cli import main
from recsys_ray.config import load_config

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
DEMO = str(Path(__file__).parent.parent / "configs" / "demo.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_parses_and_is_named_as_its_file(path: Path) -> None:
    config = load_config(str(path))
    assert config.name == path.stem
    assert path.stem.endswith(config.model_name.replace("_", "-")) or path.stem in ("demo", "movielens-small-cold")
    if path.stem.startswith(("gowalla", "beauty")):
        assert config.train.refit == "train+valid"


def test_an_override_changes_one_key_and_keeps_its_type() -> None:
    config = load_config(DEMO, ["recommend.n=33", "model.regularization=1e3", "data.users=7"])
    assert (config.recommend.n, config.model.regularization, config.data.users) == (33, 1000.0, 7)
    assert config.data.items == load_config(DEMO).data.items


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.regularisation=3", r"model\.regularisation: unknown key; did you mean 'regularization'"),
        ("recommend.n=many", r"recommend\.n: .*integer, found 'many'"),
        ("recommend.n=0", r"recommend\.n: .*greater than or equal to 1, found 0"),
        ("recommend.n=2.5", r"recommend\.n: .*integer"),
        ("recommend.filter_seen=3", r"recommend\.filter_seen: .*boolean, found 3"),
        ("model.layers=3", r"model\.layers: unknown key; ease has regularization, weighting$"),
        ("recommend.layers=3", r"recommend\.layers: unknown key$"),
        ("model={name: random, x: 1}", r"model\.x: unknown key; random has no settings$"),
        ("model.name=easy", r"model\.name: 'easy' is none of 'random', .*'ease'"),
        ("model={regularization: 3}", r"model\.name: missing$"),
        ("data.source=nowhere", r"data\.source: 'nowhere' is none of .*'synthetic'"),
        ("data.split.kind=sometimes", r"data\.split\.kind: 'sometimes' is none of .*'leave_last_out'"),
        ("data.splt={}", r"data\.splt: unknown key; did you mean 'split'"),
        ("version=2", r"version: 2 is not supported"),
        ("train.refit=some", r"train\.refit: .*'all' or 'train\+valid', found 'some'"),
        ("output=", r"output: .*string"),
        ("seed", r"'seed' is not an override; write key=value"),
        ("recommend.n.x=3", r"recommend\.n\.x=3.*n holds a value"),
        ("name=[a", r"not valid YAML"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(DEMO, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["train.refit=train+valid", "recommend.n=5"], r"recommend\.n"),
        (["train.refit=train+valid", "data.split.kind=none"], r"train\.refit"),
        (["train.refit=train+valid", "evaluate.on=valid"], r"evaluate\.on"),
    ],
)
def test_an_impossible_combination_names_the_key_to_change(overrides: list[str], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        load_config(DEMO, overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping"),
        ("- a\n- b\n", "must be a mapping"),
        ("name: a\nname: b\n", "'name' is given twice"),
        ("name: demo\n", r"output: field required"),
        ("name: [unclosed\n", "not valid YAML"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(str(path))
    assert "broken.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "left", "note"),
    [
        (["model.name=als"], {}, "note: model.name=als: dropped regularization=50.0, which was set for ease"),
        (
            ["model.name=als", "model.embedding_dim=8"],
            {"embedding_dim": 8},
            "note: model.name=als: dropped regularization=50.0",
        ),
        (
            ["model.embedding_dim=8", "model.name=als"],
            {"embedding_dim": 8},
            "note: model.name=als: dropped regularization=50.0",
        ),
        (["model.name=als", "model.regularization=0.5"], {"regularization": 0.5}, "dropped regularization=50.0"),
        (["model.name=ease"], {"regularization": 50.0}, None),
        (["model={name: als}"], {}, None),
        (["recommend.n=5"], {"regularization": 50.0}, None),
    ],
)
def test_another_model_drops_the_keys_of_the_one_in_the_file_and_says_so(
    overrides: list[str], left: dict[str, object], note: str | None
) -> None:
    notes: list[str] = []
    config = load_config(DEMO, overrides, notes.append)
    assert config.model.model_dump(exclude_unset=True, exclude={"name"}) == left
    assert len(notes) == (note is not None) and (note or "") in "".join(notes)


def test_the_command_says_what_it_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["rollback", DEMO, "model.name=als", f"output={tmp_path}", "cluster.address=nowhere:1"]
    assert main(arguments) == 1
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "note: model.name=als: dropped regularization=50.0, which was set for ease"


RANKED = """
name: ranked
output: runs/ranked
data: {source: synthetic}
model: {name: item_cf}
recommend: {ranker: {model: {name: ncf, embedding_dim: 4, epochs: 2}, pool: 50}}
"""


def test_the_ranker_is_a_model_section(tmp_path: Path) -> None:
    path = tmp_path / "ranked.yaml"
    path.write_text(RANKED)
    config = load_config(str(path))
    assert config.recommend.ranker is not None
    assert (config.recommend.ranker.model.name, config.recommend.ranker.pool) == ("ncf", 50)
    assert config.chosen_ranker().embedding_dim == 4  # type: ignore[union-attr,attr-defined]
    notes: list[str] = []
    other = load_config(str(path), ["recommend.ranker.model.name=als"], notes.append)
    assert other.recommend.ranker is not None and other.recommend.ranker.model.name == "als"
    assert notes == ["note: recommend.ranker.model.name=als: dropped embedding_dim=4, epochs=2, which were set for ncf"]
    for override, message in (
        ("recommend.ranker.model.epoch=3", r"recommend\.ranker\.model\.epoch: unknown key; did you mean 'epochs'"),
        ("recommend.ranker.bundle=models/x", r"recommend\.ranker\.bundle: unknown key"),
        ("recommend.ranker.model={epochs: 3}", r"recommend\.ranker\.model\.name: missing"),
        ("recommend.ranker={pool: 3}", r"recommend\.ranker\.model: field required"),
        ("recommend.ranker.model.name=content", r"recommend\.ranker\.model\.name: content needs item vectors"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(str(path), [override])


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: can't read the configuration"):
        load_config("nowhere.yaml")
