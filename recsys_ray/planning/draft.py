"""A configuration file from guesses, with the reasons as comments, tried on the files before it is written."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from recsys_ray.base.errors import ConfigError, DataError
from recsys_ray.base.storage import Location
from recsys_ray.config import Config, load_config
from recsys_ray.data.first_look import look_at_inputs
from recsys_ray.data.sources import open_source
from recsys_ray.planning.guesses import Guesses, guess
from recsys_ray.planning.tables import Table, find_tables

MOST_CHUNKS = 50
"""Of the interactions, what is read to try a draft."""
KNOWN_LAYOUTS: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    ("MovieLens 100K", ("u.data", "u.item"), {"source": "movielens", "size": "100k"}),
    ("MovieLens 100K with posters", ("ratings.csv", "items.csv", "posters"), {"source": "movielens", "size": "100k"}),
    ("MovieLens 1M", ("ratings.dat", "movies.dat", "users.dat"), {"source": "movielens", "size": "1m"}),
    ("MovieLens", ("ratings.csv", "movies.csv", "links.csv"), {"source": "movielens", "size": "latest-small"}),
    ("Book-Crossing", ("BX-Book-Ratings.csv", "BX-Books.csv"), {"source": "book_crossing"}),
    ("LightGCN", ("train.txt", "test.txt"), {"source": "lightgcn"}),
)
"""What a directory of a published data set holds, and the section that reads it."""
MIN_RATING = {"movielens": 3.5, "book_crossing": 6.0}
EXAMPLES = ("demo", "movielens")


@dataclass(frozen=True, slots=True)
class Draft:
    """A configuration that was written for somebody."""

    name: str
    text: str
    told: list[str]
    """What was guessed, and why."""


def example(name: str) -> Draft:
    """A ready one.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in EXAMPLES:
        raise ConfigError(f"--example {name}: there is none; examples are {', '.join(EXAMPLES)}")
    text = (resources.files("recsys_ray.planning") / "examples" / f"{name}.yaml").read_text()
    return Draft(name, text, [])


def draft(paths: list[str]) -> Draft:
    """A configuration for these files and directories.

    Raises:
        DataError: what is there can't be understood, or not be read with what was guessed.
    """
    name = _name(paths)
    if (known := _known(paths)) is not None:
        title, section = known
        return Draft(
            name, _file(name, [f"  # The layout of {title}.", *_section(section)], []), [f"{title}: {paths[0]}"]
        )
    found = guess(find_tables(paths))
    data = data_section(found)
    notes = _repaired(data, name)
    if found.min_rating is not None:
        found.lines.append(f"ratings below {found.min_rating:g} only count as seen: nobody recommends by them")
    found.lines += notes
    return Draft(name, _file(name, _commented(data, found), _content(found)), found.tell())


def data_section(found: Guesses) -> dict[str, Any]:
    """The section ``data`` of what was guessed."""
    events = found.events
    data: dict[str, Any] = {"source": "table", "path": events.path}
    data |= _layout(events, found)
    data["columns"] = {role: one.column for role, one in found.columns.items()}
    if found.event_weights:
        data["event_weights"] = {kind: weight for kind, weight in found.event_weights.items()}
    if found.items is not None:
        data["items"] = found.items.path
        columns: dict[str, Any] = {role: one.column for role, one in found.item_columns.items()}
        data["item_columns"] = columns | {
            name: listed for name, listed in (("text", found.texts), ("keep", found.kept)) if listed
        }
        if found.genre_separator is not None:
            data["genre_separator"] = found.genre_separator
    if found.users is not None:
        data["users"] = found.users.path
        lists = {"numbers": found.user_numbers, "categories": found.user_categories}
        data["user_columns"] = {"user_id": found.user_id} | {name: listed for name, listed in lists.items() if listed}
    if found.min_rating is not None:
        data["filters"] = {"min_rating": float(found.min_rating)}
    if "timestamp" in found.columns:
        data["split"] = {"kind": "temporal", "test_ratio": 0.1, "valid_ratio": 0.1}
    else:
        data["split"] = {"kind": "random", "test_ratio": 0.2}
    return data


def _layout(events: Table, found: Guesses) -> dict[str, Any]:
    tables = [table for table in (events, found.items, found.users) if table is not None]
    delimiters = {table.delimiter for table in tables if table.delimiter is not None}
    if len(delimiters) > 1:
        listed = ", ".join(f"{table.path} by {table.delimiter!r}" for table in tables)
        raise DataError(f"fields are separated in different ways ({listed}); write all files in one way")
    layout: dict[str, Any] = {"delimiter": delimiters.pop()} if delimiters else {}
    if any(table.encoding != "utf-8" for table in tables):
        layout["encoding"] = "latin-1"
    if not events.header:
        layout["column_names"] = [one.name for one in events.columns]
    return layout


def _repaired(data: dict[str, Any], name: str) -> list[str]:
    """Settings without which the files can't be read are added; what was added, in lines."""
    notes: list[str] = []
    cures = {
        "bad_rows": ("drop", "some rows can't be read"),
        "unknown_items": ("add", "some interactions are of items that the catalogue lacks"),
    }
    for _ in range(4):
        try:
            unknown = _try(data, name)
        except DataError as error:
            if "bad_rows" in data:
                raise
            data["bad_rows"], why = cures["bad_rows"]
            data["bad_rows_at_most"] = 0.05
            notes.append(f"bad_rows = drop: {why}; the first: {error}")
            continue
        if unknown and "unknown_items" not in data:
            data["unknown_items"], why = cures["unknown_items"]
            notes.append(f"unknown_items = add: {why}, such as {unknown!r}")
        return notes
    return notes


def _try(data: dict[str, Any], name: str) -> str | None:
    """Read the catalogue and the first pieces of the interactions; an item that the catalogue lacks.

    Raises:
        DataError: as a run would.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    settings = _validated(data, name).data
    look_at_inputs(settings)
    source = open_source(settings)
    rows = [source.read(chunk) for chunk in source.chunks()[:MOST_CHUNKS]]
    items = source.items()
    if items is None or not rows:
        return None
    ids = pa.chunked_array([chunk for one in rows for chunk in one.events.column("item_id").chunks]).unique()
    known = items.column("item_id")
    if ids.type != known.type:
        return None
    missing = ids.filter(pc.invert(pc.is_in(ids, value_set=known.combine_chunks())))
    return str(missing[0].as_py()) if len(missing) else None


def _validated(data: dict[str, Any], name: str) -> Config:
    tree = {"name": name, "output": f"runs/{name}", "data": data, "model": {"name": "graph_filter"}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "draft.yaml"
        file.write_text(json.dumps(tree))
        return load_config(str(file))


def _known(paths: list[str]) -> tuple[str, dict[str, Any]] | None:
    """The published data set that a directory holds."""
    if len(paths) != 1 or any(sign in paths[0] for sign in "*?["):
        return None
    names = set(Location.of(paths[0]).names())
    for title, files, section in KNOWN_LAYOUTS:
        if names >= set(files):
            data = {**section, "path": paths[0]}
            source = section["source"]
            if source in MIN_RATING:
                data["filters"] = {"min_rating": MIN_RATING[source]}
            given = source == "lightgcn"
            data["split"] = (
                {"kind": "given"} if given else {"kind": "random" if source == "book_crossing" else "leave_last_out"}
            )
            return title, data
    return None


def _name(paths: list[str]) -> str:
    """Of the run: what the data is called."""
    last = re.split(r"[/\\]", paths[0].rstrip("/."))[-1]
    word = re.sub(r"[^A-Za-z0-9]+", "-", last.split(".")[0].split("=")[0]).strip("-").lower()
    return word or "data"


def _commented(data: dict[str, Any], found: Guesses) -> list[str]:
    reasons = {f"columns.{role}": one.why for role, one in found.columns.items()}
    reasons |= {f"item_columns.{role}": one.why for role, one in found.item_columns.items()}
    reasons |= {
        "event_weights": "what an event of each kind counts; 0: only seen, null: left out",
        "split.kind": "later is test" if data["split"]["kind"] == "temporal" else "there are no times",
        "filters.min_rating": "lower ratings only count as seen",
        "bad_rows": "rows that can't be read are left out and counted",
        "unknown_items": "items of interactions that the catalogue lacks get no title",
        "item_columns.text": "what is embedded, with a section content",
        "item_columns.keep": "kept to filter by",
        "genre_separator": "between the categories of an item",
    }
    return _section(data, reasons)


def _section(data: dict[str, Any], reasons: dict[str, str] | None = None, outer: str = "") -> list[str]:
    """YAML of a section, a key a line, with the reasons behind."""
    lines = []
    for key, value in data.items():
        why = (reasons or {}).get(f"{outer}{key}")
        behind = f"  # {' '.join(why.split())}" if why else ""
        indent = "  " * (1 + outer.count("."))
        if isinstance(value, dict):
            lines.append(f"{indent}{_scalar(key)}:{behind}")
            lines += _section(value, reasons, f"{outer}{key}.")
        else:
            lines.append(f"{indent}{_scalar(key)}: {_scalar(value)}{behind}")
    return lines


def _scalar(value: Any) -> str:
    """As YAML; JSON is YAML."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./=-]*", value) and value.lower() not in YES_AND_NO:
        return value
    return json.dumps(value, ensure_ascii=False)


YES_AND_NO = ("yes", "no", "on", "off", "true", "false", "null", "y", "n")


def _content(found: Guesses) -> list[str]:
    kinds = [
        *(["text: {model: all-MiniLM-L6-v2, fields: [title, text, genres]}"] if found.texts else []),
        *(["image: {encoder: palette}"] if "poster" in found.item_columns else []),
    ]
    if not kinds:
        return []
    head = "# Vectors of texts and pictures, so that new items are recommended, too: take the # away."
    return [head, "# content:", *(f"#   {kind}" for kind in kinds)]


def _file(name: str, data: list[str], content: list[str]) -> str:
    cold = "{refit: all}" + ("  # with content: {refit: all, cold_items: {}}" if content else "")
    return "\n".join(
        [
            "# Written by recsys-ray init. Next: recsys-ray plan with this file, then recsys-ray run.",
            "# Every key: recsys-ray describe SECTION",
            f"name: {_scalar(name)}",
            f"output: runs/{name}",
            "data:",
            *data,
            *content,
            "model: {name: graph_filter}  # nothing to tune; recsys-ray choose says which model suits your data",
            f"training: {cold}",
            "recommend: {n: 20}  # rows for every user",
            "runs:",
            "  gate: {min_coverage: 0.02, max_fallback: 0.5}  # what is worse is not published",
            "",
        ]
    )
