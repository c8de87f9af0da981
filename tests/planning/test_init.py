"""A configuration from somebody's files: whatever they are called, however they are written, it is one that runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys_ray.base.errors import DataError
from recsys_ray.cli import main
from recsys_ray.config import Config, load_config
from recsys_ray.data.sources import open_source
from recsys_ray.planning.draft import draft
from tests.here import without_ray

USERS, ITEMS, ROWS = 40, 30, 900


def events(user: str = "user_id", item: str = "item_id", **more: object) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            user: [f"C-{n:04d}" for n in rng.integers(0, USERS, ROWS)],
            item: [f"A{n}" for n in rng.integers(0, ITEMS, ROWS)],
        }
    )
    return frame.assign(**{name: make(rng) if callable(make) else make for name, make in more.items()})


def moments(rng: np.random.Generator) -> np.ndarray:
    return 1_750_000_000 + rng.integers(0, 10**7, ROWS)


def catalogue(key: str = "SKU") -> pd.DataFrame:
    names = {
        key: [f"A{n}" for n in range(ITEMS)],
        "product name": [f"Thing {n}" for n in range(ITEMS)],
        "long_description": [
            f'A thing of kind {n % 4}, "good",\nand made to last for many years.' for n in range(ITEMS)
        ],
        "dept": [f"Home > Kind {n % 4}" for n in range(ITEMS)],
        "maker": [f"Maker {n % 3}" for n in range(ITEMS)],
        "image_file": [f"img/{n}.jpg" for n in range(ITEMS)],
        "launch_date": [f"20{n % 20 + 10}-01-31" for n in range(ITEMS)],
        "price": [n * 1.5 for n in range(ITEMS)],
    }
    return pd.DataFrame(names)


def drafted(tmp_path: Path, *paths: Path) -> Config:
    """The configuration of a draft, which reads all of its files."""
    found = draft([str(path) for path in paths])
    file = tmp_path / "draft.yaml"
    file.write_text(found.text)
    config = load_config(str(file))
    source = open_source(config.data)
    assert sum(source.read(chunk).events.num_rows for chunk in source.chunks()) == ROWS
    source.items()
    return config


def columns(config: Config) -> dict[str, str]:
    return {name: value for name, value in config.data.columns.model_dump().items() if value}  # type: ignore[union-attr]


def test_a_shop_of_odd_names_in_one_folder(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    made = events("customerNumber", "sku_code", event_ts=moments, qty=2)
    made["event_type"] = np.where(np.arange(ROWS) % 9 == 0, "purchase", "view")
    for month in range(3):
        place = shop / "events" / f"month=2026-0{month + 1}"
        place.mkdir(parents=True)
        made.iloc[month::3].to_parquet(place / "part-0.parquet")
    catalogue().to_csv(shop / "catalogue.csv", index=False)
    (shop / "README.txt").write_text("about the shop")
    config = drafted(tmp_path, shop)
    assert columns(config) == {
        "user_id": "customerNumber", "item_id": "sku_code", "timestamp": "event_ts", "event": "event_type",
    }  # fmt: skip
    data = config.data.model_dump()
    assert data["event_weights"] == {"view": 1.0, "purchase": 5.0} and config.data.split.kind == "temporal"
    assert data["item_columns"] | {
        "item_id": "SKU", "title": "product name", "text": ["long_description"], "genres": "dept",
        "year": "launch_date", "poster": "image_file", "keep": ["maker"],
    } == data["item_columns"]  # fmt: skip
    assert data["genre_separator"] == " > "


@pytest.mark.parametrize("form", ["csv", "csv.gz", "semicolon", "tsv", "jsonl", "parquet", "latin-1"])
def test_every_way_a_table_is_written(tmp_path: Path, form: str) -> None:
    made = events("member", "article", stars=lambda rng: rng.integers(1, 6, ROWS), when=moments)
    file = tmp_path / {"semicolon": "log.csv", "latin-1": "log.csv"}.get(form, f"log.{form}")
    if form == "parquet":
        made.to_parquet(file)
    elif form == "jsonl":
        made.to_json(file, orient="records", lines=True)
    else:
        if form == "latin-1":
            made["article"] = made["article"].str.replace("A", "\u00c4")
        separator = {"semicolon": ";", "tsv": "\t"}.get(form, ",")
        made.to_csv(file, index=False, sep=separator, encoding="latin-1" if form == "latin-1" else "utf-8")
    config = drafted(tmp_path, file)
    assert columns(config) == {"user_id": "member", "item_id": "article", "rating": "stars", "timestamp": "when"}
    assert config.data.filters.min_rating == 3.5


def test_values_tell_the_item_where_names_do_not(tmp_path: Path) -> None:
    events("a", "b").iloc[:, ::-1].to_csv(tmp_path / "x.csv", index=False)
    catalogue("c").to_csv(tmp_path / "y.csv", index=False)
    config = drafted(tmp_path, tmp_path / "y.csv", tmp_path / "x.csv")
    assert columns(config) == {"user_id": "a", "item_id": "b"} and config.data.split.kind == "random"


def test_without_names_at_all_the_first_is_the_user(tmp_path: Path) -> None:
    events("a", "b", t=moments).to_csv(tmp_path / "x.tsv", index=False, header=False, sep="\t")
    frame = pd.read_csv(tmp_path / "x.tsv", sep="\t", header=None)
    for column in (0, 1):
        frame[column] = frame[column].str.extract(r"(\d+)")
    frame.to_csv(tmp_path / "x.tsv", index=False, header=False, sep="\t")
    assert columns(drafted(tmp_path, tmp_path / "x.tsv")) == {
        "user_id": "column_1", "item_id": "column_2", "timestamp": "column_3",
    }  # fmt: skip


def test_a_table_of_people_is_told_from_a_catalogue(tmp_path: Path) -> None:
    events("uid", "iid").to_csv(tmp_path / "log.csv", index=False)
    ids = [f"C-{n:04d}" for n in range(USERS)]
    people = pd.DataFrame({"uid": ids, "age": range(20, 20 + USERS), "country": ["DE", "FR"] * (USERS // 2)})
    people.to_csv(tmp_path / "people.csv", index=False)
    catalogue("iid").to_csv(tmp_path / "things.csv", index=False)
    config = drafted(tmp_path, tmp_path / "log.csv", tmp_path / "people.csv", tmp_path / "things.csv")
    data = config.data.model_dump()
    assert data["users"].endswith("people.csv") and data["items"].endswith("things.csv")
    assert data["user_columns"] == {"user_id": "uid", "numbers": ["age"], "categories": ["country"]}


def test_broken_rows_and_unknown_items_are_told_and_lived_with(tmp_path: Path) -> None:
    made = events("user", "item", ts=moments)
    text = made.to_csv(index=False) + "C-0001,A3,soon\n,A4,1750000000\n"
    (tmp_path / "log.csv").write_text(text)
    catalogue("item").iloc[:-3].to_csv(tmp_path / "items.csv", index=False)
    config = drafted(tmp_path, tmp_path / "log.csv", tmp_path / "items.csv")
    assert (config.data.bad_rows, config.data.unknown_items) == ("drop", "add")


def test_what_is_no_data_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n")
    pd.DataFrame({"price": [1.5, 2.5], "note": ["a", "b"]}).to_csv(tmp_path / "y.csv", index=False)
    (tmp_path / "empty").mkdir()
    for name, words in (("x.csv", "x.csv"), ("y.csv", "no two columns"), ("empty", "empty"), ("nowhere", "nowhere")):
        with pytest.raises((DataError, OSError, ValueError), match=words) as caught:
            draft([str(tmp_path / name)])
        assert "\n" not in str(caught.value)


def test_the_command_writes_once_and_says_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    events().to_csv("orders.csv", index=False)
    assert main(["init", "orders.csv"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["path"] == "orders.yaml" and "recsys-ray plan orders.yaml" in err and "user_id" in err
    assert main(["init", "orders.csv"]) == 1 and "--force" in capsys.readouterr().err
    assert main(["init", "orders.csv", "--force"]) == 0
    assert main(["init"]) == 1 and main(["init", "orders.csv", "--example", "demo"]) == 1
    assert main(["init", "--example", "dmo"]) == 1
    capsys.readouterr()
    assert main(["init", "--example", "demo"]) == 0 and main(["init", "--example", "movielens"]) == 0
    assert load_config("demo.yaml").name == "demo"
    capsys.readouterr()
    with without_ray():
        assert main(["run", "orders.yaml", "evaluation.bootstrap=20", "runs.accuracy.override=true"]) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)["summary"]
    assert summary["published"] and len(summary["examples"]) == 3 and "recsys-ray serve orders.yaml" in err
    assert sum(count for what, count in summary["funnel"] if what != "read") == summary["funnel"][0][1] == ROWS


@pytest.mark.slow
def test_the_tutorial_is_what_the_commands_say(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its guesses line by line; its commands run, up to the published lists."""
    told = (Path(__file__).parents[2] / "docs" / "tutorials" / "shop.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").symlink_to(datasets / "shop")
    assert main(["init", "shop"]) == 0
    guesses = capsys.readouterr().err.strip().splitlines()
    assert len(guesses) > 12 and all(line in told.splitlines() for line in guesses)
    assert main(["plan", "shop.yaml"]) == 0
    assert capsys.readouterr().err.splitlines()[0] in told.splitlines()
    with without_ray():
        assert main(["run", "shop.yaml"]) == 0
        assert main(["verify", "shop.yaml"]) == 0
    assert "lists: 3,000 users with 60,000 rows pass the gate" in capsys.readouterr().err
