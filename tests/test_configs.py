"""Every shipped configuration parses; every mistake in one is a line that names the key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recsys_ray.base.errors import ConfigError
from recsys_ray.cli import main
from recsys_ray.config import Config, dump, load_config
from recsys_ray.recommend.config import fallback_names

OTHERS = (
    "demo", "movielens-small-cold", "movielens-small-hybrid", "movielens-small-ranker", "ml100k-content", "table",
    "gowalla-chebyshev", "gowalla-chebyshev-recent", "beauty-best",
)  # fmt: skip
CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
DEMO = str(Path(__file__).parent.parent / "configs" / "demo.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_parses_and_is_named_as_its_file(path: Path) -> None:
    config = load_config(str(path))
    assert config.name == path.stem
    assert path.stem.endswith(config.model_name.replace("_", "-")) or path.stem in OTHERS
    if path.stem.startswith(("gowalla", "beauty")):
        assert config.training.refit == "train+valid"


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
        ("model.layers=3", r"model\.layers: unknown key; ease has dropout, .*, weighting$"),
        ("recommend.layers=3", r"recommend\.layers: unknown key$"),
        ("model={name: random, x: 1}", r"model\.x: unknown key; random has no settings$"),
        ("model.name=easy", r"model\.name: 'easy' is none of 'random', .*'ease'"),
        ("model={regularization: 3}", r"model\.name: missing; set one of 'random', .*"),
        ("data.source=nowhere", r"data\.source: 'nowhere' is none of .*'synthetic'"),
        ("data.split.kind=sometimes", r"data\.split\.kind: 'sometimes' is none of .*'leave_last_out'"),
        ("data.splt={}", r"data\.splt: unknown key; did you mean 'split'"),
        ("version=2", r"version: 2 is not supported"),
        ("training.refit=some", r"training\.refit: .*'all' or 'train\+valid', found 'some'"),
        ("output=", r"output: .*string"),
        ("seed", r"'seed' is not an override; write key=value"),
        ("recommend.n.x=3", r"recommend\.n\.x: n holds a value"),
        ("recommend.n=[a", r"recommend\.n: .*integer, found '\[a'"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(DEMO, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["training.refit=train+valid", "recommend.n=5"], r"recommend\.n"),
        (["training.refit=train+valid", "data.split.kind=none"], r"training\.refit"),
        (["training.refit=train+valid", "evaluation.on=valid"], r"evaluation\.on"),
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
    assert first.partition(" note: ")[2] == "model.name=als: dropped regularization=50.0, which was set for ease"


PLAIN = """
name: sections
output: runs/sections
data: {source: synthetic, split: {kind: leave_last_out}}
model: {name: ease}
"""
PRESENT = (
    PLAIN
    + """
content: {keep: 2, text: {fields: [title]}, report: {titles: 3, projection: pca}}
training: {refit: train+valid, workers: {count: 2}, cold_items: {}}
evaluation: {k: [2, 4], baselines: [random]}
runs: {enabled: false, gate: {min_coverage: 0.2}, to: some-run}
serving: {port: 8123, deployment: {replicas: 2}}
"""
)
FORMER = (
    PLAIN
    + """
analysis: {titles: 3, projection: pca}
embeddings: {keep: 2, text: {fields: [title]}}
train: {refit: train+valid, workers: {count: 2}, cold_items: {}}
evaluate: {k: [2, 4], baselines: [random]}
publish: {enabled: false, gate: {min_coverage: 0.2}, to: some-run}
serve: {port: 8123, deployment: {replicas: 2}}
"""
)


def loaded(folder: Path, text: str, *overrides: str) -> Config:
    path = folder / "sections.yaml"
    path.write_text(text)
    return load_config(str(path), overrides)


def test_a_file_with_the_former_names_of_sections_is_the_same_configuration(tmp_path: Path) -> None:
    notes: list[str] = []
    present = loaded(tmp_path, PRESENT)
    former = loaded(tmp_path, FORMER)
    assert former == present and dump(former) == dump(present)  # what fingerprints are taken from
    assert present.content is not None and present.content.report.titles == 3
    assert (present.evaluation.k, present.runs.to, present.serving.deployment.replicas) == ([2, 4], "some-run", 2)
    load_config(str(tmp_path / "sections.yaml"), ["train.refit=all"], notes.append)
    assert not notes


@pytest.mark.parametrize("text", [PRESENT, FORMER], ids=["present", "former"])
@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("embeddings.keep=7", "content.keep=7"),
        ("embeddings={text: {fields: [genres]}}", "content={text: {fields: [genres]}}"),
        ("analysis.titles=7", "content.report.titles=7"),
        ("analysis={titles: 7}", "content.report={titles: 7}"),
        ("train.cold_items.regularization=7", "training.cold_items.regularization=7"),
        ("train={refit: all}", "training={refit: all}"),
        ("evaluate.k=[2]", "evaluation.k=[2]"),
        ("evaluate={k: [2]}", "evaluation={k: [2]}"),
        ('evaluate={"k": [2]}', 'evaluation={"k": [2]}'),
        ("publish.gate.min_coverage=0.7", "runs.gate.min_coverage=0.7"),
        ("publish={keep: 7}", "runs={keep: 7}"),
        ("serve.port=7777", "serving.port=7777"),
        ("serve={port: 7777}", "serving={port: 7777}"),
    ],
)
def test_an_override_with_either_name_meets_a_file_with_the_other(
    tmp_path: Path, text: str, former: str, present: str
) -> None:
    wanted = loaded(tmp_path, PRESENT, present)
    assert loaded(tmp_path, text, former) == wanted == loaded(tmp_path, text, present)
    assert wanted != loaded(tmp_path, PRESENT)


@pytest.mark.parametrize(
    ("former", "present", "text"),
    [
        ("embeddings", "content", "embeddings: {}\ncontent: {}"),
        ("analysis", "content.report", "analysis: {titles: 3}\ncontent: {report: {titles: 3}}"),
        ("train", "training", "training: {}\ntrain: {}"),
        ("evaluate", "evaluation", "evaluate: {k: [3]}\nevaluation: {k: [3]}"),
        ("publish", "runs", "publish: {keep: 3}\nruns: {enabled: true}"),
        ("serve", "serving", "serve: null\nserving: {port: 3}"),
    ],
)
def test_a_section_under_both_names_is_one_error(tmp_path: Path, former: str, present: str, text: str) -> None:
    message = rf"sections\.yaml: {former} is the former name of the section {re.escape(present)}, and both are given"
    with pytest.raises(ConfigError, match=message) as caught:
        loaded(tmp_path, f"{PLAIN}{text}\n")
    assert "\n" not in str(caught.value)


def test_settings_of_the_report_alone_make_no_vectors(tmp_path: Path) -> None:
    for text, overrides in (("analysis: {titles: 3}", []), ("", ["analysis.titles=3"]), ("", ["analysis={titles: 3}"])):
        alone = loaded(tmp_path, f"{PLAIN}{text}\n", *overrides)
        assert alone.content is None
        assert loaded(tmp_path, f"{PLAIN}{text}\ncontent: null\n", *overrides) == alone
        later = loaded(tmp_path, f"{PLAIN}{text}\n", *overrides, "embeddings={}")
        assert later.content is not None and later.content.report.titles == 3


def test_a_wrong_setting_under_a_former_name_names_the_present_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.refit: .*found 'some'"):
        loaded(tmp_path, f"{PLAIN}train: {{refit: some}}\n")
    with pytest.raises(ConfigError, match=r"serving\.port\.x: port holds a value"):
        loaded(tmp_path, PRESENT, "serve.port.x=3")
    with pytest.raises(ConfigError, match=r"^.*sections\.yaml: trains: unknown key"):
        loaded(tmp_path, PLAIN, "trains={}")


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


@pytest.mark.parametrize(
    ("baselines", "words"),
    [
        ("[nobody]", "no model 'nobody'"),
        ("[{name: item_cf, neighbours: 3}]", "item_cf: neighbours"),
        ("[{name: als, epochs: 1}, {name: als, epochs: 2}]", "two are called 'als'"),
        ("[{regularization: 3}]", "no model None"),
    ],
)
def test_baselines_that_can_not_be_are_one_line(baselines: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_config("configs/movielens-small-ease.yaml", [f"evaluation.baselines={baselines}"])
    assert "\n" not in str(caught.value)


def test_baselines_have_settings_and_labels_of_their_own() -> None:
    given = "[popularity, ease, {name: als, epochs: 1}, {name: als, epochs: 2, label: longer}]"
    found = load_config("configs/movielens-small-ease.yaml", [f"evaluation.baselines={given}"]).baselines()
    assert list(found) == ["popularity", "als", "longer"]  # ease is the model itself
    assert found["longer"].model_dump()["epochs"] == 2


def test_a_member_of_a_blend_is_told_its_own_mistakes() -> None:
    with pytest.raises(ConfigError, match=r"model\.members\.1\..*neighbours"):
        blend = "{name: blend, members: [{model: {name: ease}}, {model: {name: item_cf, neighbours: 3}}]}"
        load_config("configs/movielens-small-ease.yaml", [f"model={blend}"])


@pytest.mark.parametrize(
    ("fallback", "words"),
    [
        ("[nobody]", "no model 'nobody'"),
        ("[item_cf, item_cf]", "two are called 'item_cf'"),
        ("[{name: ease, regularization: 500.0}]", "ease is the model itself"),
        ("[content]", "content needs item vectors; add a section content"),
        ("[{name: als, rank: 3}]", "als: rank"),
    ],
)
def test_fallbacks_that_can_not_be_are_one_line(fallback: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as failure:
        load_config("configs/movielens-small-ease.yaml", ["model.regularization=500", f"recommend.fallback={fallback}"])
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("fallback", "models", "names"),
    [
        ("none", [], ()),
        ("popularity", [], ("popularity",)),
        ("[{name: als, embedding_dim: 8, label: quick}, popularity]", ["quick"], ("quick", "popularity")),
    ],
)
def test_fallbacks_are_models_by_name_or_section(fallback: str, models: list[str], names: tuple[str, ...]) -> None:
    config = load_config("configs/movielens-small-ease.yaml", [f"recommend.fallback={fallback}"])
    assert list(config.fallbacks()) == models
    assert fallback_names(config.recommend.fallback) == names
