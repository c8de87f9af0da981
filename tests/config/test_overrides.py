"""Laws of what is typed behind a configuration: text arrives as text, what YAML dumps arrives as it was."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from recsys_ray.base.errors import ConfigError
from recsys_ray.base.provenance import fingerprint
from recsys_ray.base.secrets import mask, masked
from recsys_ray.config import RUN_SECTIONS, Config, dump, dump_sections, load_config
from recsys_ray.config.text import parse_file, parse_words, plain

ROOT = Path(__file__).parent.parent.parent
DEMO = str(ROOT / "configs" / "demo.yaml")
TABLE = "data.source=table"
YAML_WORDS = [
    *(
        "null",
        "~",
        "true",
        "yes",
        "off",
        "010",
        "1e3",
        "0x1f",
        "1:30",
        "2020-01-01",
        "a: b",
        "a #b",
        "#",
        "*",
        "@",
        "%",
    ),
    *("[", "{a", "- a", "&x", "!y", "|", ">", "'a", '"a"', "<<", "=", "a=b", " a ", "key=value"),
]

TEXTS = st.one_of(
    st.sampled_from(YAML_WORDS), st.text(min_size=1), st.text(" #:*@%[]{}&!|>'\"-,\n\tab01=~", min_size=1)
).filter(lambda text: "\0" not in text)
SCIENTIFIC = re.compile(r"[-+]?(\d+|\d+\.\d*|\.\d+)([eE][-+]?\d+)")
"""Without a dot or a sign PyYAML takes them for text, we for a number, as all other languages do."""
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS.filter(lambda text: not SCIENTIFIC.fullmatch(text)),
    st.just(""),
)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=12)


@given(TEXTS)
def test_text_for_a_key_of_text_arrives_as_it_is(text: str) -> None:
    config = load_config(DEMO, [f"name={text}", f"output={text}", f"recommend.deny={text}"])
    assert (config.name, config.output) == (text, text)
    assert config.recommend.deny == (None if text == "null" else text)


@given(st.dictionaries(TEXTS, TREES, min_size=1), st.booleans(), st.sampled_from([None, False, True]))
def test_a_mapping_that_yaml_dumped_arrives_equal(tree: dict[str, Any], ascii_only: bool, flow: bool | None) -> None:
    text = yaml.safe_dump(tree, allow_unicode=not ascii_only, default_flow_style=flow)
    assume(yaml.safe_load(text) == tree)  # line ends of Unicode are lost between PyYAML and itself
    assert plain(parse_words(text)) == tree
    assert plain(parse_file(text.encode(), "file")) == tree


@given(st.lists(TREES))
def test_a_list_that_yaml_dumped_in_one_line_arrives_equal(values: list[Any]) -> None:
    text = yaml.safe_dump(values, default_flow_style=True)
    assume(yaml.safe_load(text) == values)
    assert plain(parse_words(text)) == values


@given(st.dictionaries(st.sampled_from(["data.a", "b"]), st.lists(st.integers(), min_size=1), min_size=1))
def test_a_dumped_section_arrives_in_the_configuration(space: dict[str, list[int]]) -> None:
    assert load_config(DEMO, [f"tune.space={yaml.safe_dump(space)}"]).tune.space == space


@given(TEXTS, st.integers(2, 100))
def test_values_from_python_arrive_as_they_are(text: str, n: int) -> None:
    config = load_config(DEMO, {"name": text, "recommend.n": n, "recommend.deny": None, "evaluation.k": [1, n]})
    assert (config.name, config.recommend.n, config.recommend.deny) == (text, n, None)


@pytest.mark.parametrize("text", ["[1, 2] # a", "{a: 1} #", "5 #6", "[1, 2", "{a", "*a", "@a", "%a", "&a 1", "!!int 3"])
def test_what_is_not_wholly_yaml_stays_text(text: str) -> None:
    assert parse_words(text) == text


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "null", "~", "010", "1.5", "2020-01-01"])
def test_words_of_yaml_are_text_as_keys(word: str) -> None:
    assert parse_file(f"{word}: 1\n".encode(), "file").keys() == {word}


def test_text_in_the_file_is_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("name: 010\noutput: on\ndata: {source: synthetic}\nmodel: ease\nevaluate: {on: valid}\n")
    config = load_config(str(file))
    assert (config.name, config.output, config.evaluation.on) == ("010", "on", "valid")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_config(str(file)) == config


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("model=als", "model={name: als}"),
        ("data.split=random", "data.split={kind: random}"),
        ("recommend.ranker={model: als}", "recommend.ranker={model: {name: als}}"),
    ],
)
def test_a_kind_stands_for_its_section(short: str, long: str) -> None:
    assert load_config(DEMO, [short]) == load_config(DEMO, [long])


def test_another_kind_keeps_what_both_inherit_and_says_what_it_drops(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(
        "name: a\noutput: b\nmodel: {name: ease, regularization: 3.0}\n"
        "data: {source: synthetic, users: 9, filters: {min_rating: 2.0}, split: {kind: random, test_ratio: 0.3}}\n"
    )
    notes: list[str] = []
    config = load_config(str(file), [TABLE, "data.path=x", "data.columns={}", "data.split=last_share", "model=als"],
                         notes.append)  # fmt: skip
    assert config.data.filters.min_rating == 2.0 and config.data.split.test_ratio == 0.3  # type: ignore[union-attr]
    assert [note.partition(": dropped ")[2] for note in notes] == [
        "users=9, which was set for synthetic",
        "regularization=3.0, which was set for ease",
    ]
    same = load_config(str(file), ["model=ease"], notes.append)
    assert same.model.regularization == 3.0 and len(notes) == 2


SECRET = "hunter2hunter2"
ADDRESSES = [
    f"redis://:{SECRET}@host:6379/0",
    f"s3://key:{SECRET}@bucket/x",
    f"s3://key:{SECRET}/+x@bucket/x",
    f"https://{SECRET}@host/x",
    f"https://host/x?sig={SECRET}&n=2",
    f"https://host/x?X-Amz-Signature={SECRET}",
    f"az://c/x?account_key={SECRET}",
]
OPEN = [
    "s3://bucket/a@b",
    "http://host:80/a@2x.png",
    "abfss://container@account/x",
    "http://h/?monkey=1&keys=2",
    "a@b.c",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_secrets_are_in_no_manifest_and_no_fingerprint(address: str) -> None:
    config = load_config(DEMO, [f"recommend.deny={address}", f"serving.redis={address}", f"output={address}"])
    assert SECRET not in str(dump(config)) and SECRET not in mask(f"error: {address}: x")
    other = load_config(DEMO, [f"recommend.deny={address.replace(SECRET, 'other')}"])
    assert fingerprint(dump(config.recommend)) == fingerprint(dump(other.recommend))
    assert str(config.recommend.deny) == address  # who works with it sees it


@pytest.mark.parametrize("address", OPEN)
def test_addresses_without_secrets_stay_and_stay_apart(address: str) -> None:
    assert mask(address) == address == masked({"path": address})["path"]


def test_a_manifest_holds_only_what_its_stage_reads() -> None:
    kept = dump_sections(load_config(DEMO), RUN_SECTIONS)
    assert kept.keys() == set(RUN_SECTIONS) < set(Config.model_fields)
    assert not kept.keys() & {"serving", "cluster", "tracking", "tune", "features"}


def test_a_text_that_is_no_option_is_told_what_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    from recsys_ray.cli import main

    assert main(["prepare", DEMO, "--recommend"]) == 2
    assert "recommend.n=20" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="is not an override"):
        load_config(DEMO, ["recommend.n"])
