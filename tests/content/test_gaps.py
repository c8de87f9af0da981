"""Posters by paths that start at the catalogue, and what is said of texts and posters that are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys_ray.base.errors import DataError
from recsys_ray.base.relative import apart, beside, joined
from recsys_ray.base.storage import Location
from recsys_ray.content.config import ContentSettings, ImageSettings
from recsys_ray.content.gaps import gaps
from recsys_ray.content.posters.reader import read_posters


def test_relative_paths_start_at_the_catalogue_or_at_the_root(tmp_path: Path) -> None:
    catalogue = Location.of(tmp_path / "shop" / "items.csv")
    for folder in ("shop", "elsewhere"):
        (tmp_path / folder / "p").mkdir(parents=True)
        (tmp_path / folder / "p" / "7.png").write_bytes(folder.encode())
    place = beside(catalogue, "p/7.png")
    for root, expected in ((None, b"shop"), (str(tmp_path / "elsewhere"), b"elsewhere")):
        (poster,) = read_posters([place], ["7"], ImageSettings(root=root))
        assert poster.data == expected
    assert joined(place) == f"{tmp_path}/shop/p/7.png" and apart(place) == (f"{tmp_path}/shop", "p/7.png")
    for other in ("/a/b.png", "https://x/a.png", "data:image/png;base64,AA", "s3://b/a.png", "~/a.png", ""):
        assert beside(catalogue, other) == other == joined(other)
    assert joined(beside(Location("s3://b/c/items.csv"), "./p/7.png")) == "s3://b/c/p/7.png"


@pytest.mark.parametrize(
    ("totals", "said"),
    [
        ({"without_image": 3, "poster_problems": {"not found": 3}}, "3 of 1,000 posters can't be read (not found 3"),
        ({"without_image": 400, "poster_problems": {"not found": 3}}, "3 of 603 posters can't be read"),
        ({"without_image": 100, "poster_problems": {"not found": 100}}, "warning: 100 of 1,000 posters"),
        ({"without_text": 20}, "20 of 1,000 items have no text"),
        ({"without_text": 200}, "warning: 200 of 1,000 items have no text"),
        ({"without_image": 900}, None),
        ({"without_image": 1000, "poster_problems": {"not found": 1000}}, DataError),
        ({"without_image": 1000}, DataError),
        ({"without_text": 501}, DataError),
    ],
)
def test_what_a_table_lacks_is_said_in_proportion(totals: dict[str, Any], said: Any) -> None:
    facts = {"items": 1000, "poster_problem_items": [["7", "not found: /a.png"]]} | totals
    settings = ContentSettings(image=ImageSettings())
    if said is DataError:
        with pytest.raises(DataError, match=r"content\.missing_at_most=0\.5"):
            gaps(facts, settings)
        assert gaps(facts, settings.model_copy(update={"missing_at_most": 1.0}))
    else:
        lines = gaps(facts, settings)
        assert [line[: len(said or "")] for line in lines] == ([said] if said else [])
