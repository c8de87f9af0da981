"""What can be set, as data: complete, in words, and a schema that knows every shipped configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys_ray.base.errors import ConfigError
from recsys_ray.cli import main
from recsys_ray.config import Config
from recsys_ray.config.reference import json_schema, keys, kinds, models, section, sections
from recsys_ray.config.text import parse_file, plain
from recsys_ray.models import MODELS

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def read(file: Path) -> Any:
    return plain(parse_file(file.read_bytes(), str(file)))


def leaves(tree: Any, outer: str = "") -> set[str]:
    if not isinstance(tree, dict):
        return {outer}
    return {outer} | {
        leaf for name, inner in tree.items() for leaf in leaves(inner, f"{outer}.{name}" if outer else name)
    }


def test_every_key_of_the_shipped_files_is_described() -> None:
    known = set(keys())
    free = ("data.event_weights", "tune.space", "data.columns", "recommend.ranker.model")
    for file in CONFIGS:
        for key in leaves(read(file)) - {""}:
            assert key in known or key.startswith(free), (file.name, key)


def test_sections_come_once_and_their_keys_have_words() -> None:
    found = sections()
    places = [(one.path, one.kind) for one in found]
    assert len(places) == len(set(places)) and {one.path for one in found} >= {"", "data.split", "serving.limits"}
    assert kinds("model") == list(MODELS) and "leave_last_out" in kinds("data.split")
    silent = [
        key.path for one in found for key in one.keys if not key.text and key.type != "section" and not fixed(key)
    ]
    assert silent == []


def fixed(key: Any) -> bool:
    """A key that tells kinds apart says all by its value, and sections of the same name by theirs."""
    return key.path.rpartition(".")[2] in ("name", "source", "kind") or " section" in f" {key.type}"


def test_a_section_a_kind_a_model_and_a_key_are_found_by_name() -> None:
    assert [one.path for one in section("recommend")] == ["recommend"]
    assert section("als")[0].kind == "als" and section("leave_last_out")[0].path == "data.split"
    assert [key.path for one in section("newest_per_user") for key in one.keys] == ["data.filters.newest_per_user"]
    n = next(key for key in section("recommend")[0].keys if key.path == "recommend.n")
    assert (n.type, n.default, n.bounds) == ("whole number", "10", ">= 1") and n.text
    with pytest.raises(ConfigError, match=r"'min_ratin' is no section, key or model; did you mean 'min_rating'"):
        section("min_ratin")


def test_models_say_what_they_are() -> None:
    found = models()
    assert [entry.name for entry in found] == list(MODELS)
    assert all(entry.summary and len(entry.text) > 100 and entry.section.keys for entry in found)
    assert next(entry for entry in found if entry.name == "content").needs_content
    assert next(entry for entry in found if entry.name == "sasrec").ordered


def test_the_schema_takes_every_shipped_file_and_no_wrong_one() -> None:
    from jsonschema import Draft202012Validator

    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for file in CONFIGS:
        assert not list(validator.iter_errors(read(file))), file.name
    good = read(CONFIGS[0])
    for wrong in ({"modell": 3}, {"recommend": {"n": 0}}, {"model": {"name": "easee"}}):
        assert list(validator.iter_errors(good | wrong))
    assert schema["properties"]["seed"]["description"] and set(Config.model_fields) == set(schema["properties"])


def test_the_commands_print_them(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["describe", "ease"], "model.regularization"),
        (["models"], "sasrec"),
        (["describe"], "data.split"),
    ):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert told in out and told in err  # JSON for programs, text for people
