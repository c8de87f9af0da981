"""recommend: masks, fallback, sources, ids. Worlds small enough to rank by hand; no files, no Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_ray.base.errors import ConfigError, DataError, ModelError
from recsys_ray.base.storage import Location
from recsys_ray.base.types import BoolArray, FloatArray, Histories, ItemLists, ItemVectors, Requests, ScorerState
from recsys_ray.recommend.bundle import Bundle
from recsys_ray.recommend.options import Options, check_options
from recsys_ray.recommend.rank import nested, predict, recommend, seen_items


@dataclass
class TableScorer:
    """Scores read off a table by user row; unknown users and rows of NaN have no answer."""

    table_UI: FloatArray
    scorable_I: BoolArray
    factored: bool = False

    @property
    def num_items(self) -> int:
        return self.table_UI.shape[1]

    def answers(self, requests: Requests) -> BoolArray:
        return requests.users_B >= 0

    kind: ClassVar[str] = "table"
    personal: ClassVar[bool] = True

    @property
    def items(self) -> ItemVectors | None:
        return ItemVectors(np.ascontiguousarray(self.table_UI.T)) if self.factored else None

    def queries(self, requests: Requests) -> FloatArray:
        return np.eye(len(self.table_UI), dtype=np.float32)[requests.users_B]

    def score(self, requests: Requests) -> FloatArray:
        return self.table_UI[requests.users_B]

    def state(self) -> ScorerState:
        raise NotImplementedError

    @classmethod
    def from_state(cls, state: ScorerState) -> TableScorer:
        raise NotImplementedError


COUNTS = [1, 4, 3, 3, 0]  # popularity order of the items: 1, 2, 3, 0, 4
SCORES = np.array([[5, 4, 3, 2, 1], [1, 1, 1, 1, 0], [0, 2, -np.inf, 2, -1]], np.float32)


def world(scores: FloatArray = SCORES, scorable: list[bool] | None = None, factored: bool = False) -> Bundle:
    items = pa.table({"item_id": ["a", "b", "c", "d", "e"], "count": pa.array(COUNTS, pa.int32())})
    scorer = TableScorer(scores, np.array(scorable or [True] * 5), factored)
    return Bundle(Location("memory"), {"user_id_type": "int64", "num_users": 8, "model": "table"}, scorer, items)


def ask(users: list[int], histories: list[list[int]], seen: list[list[int]] | None = None) -> Requests:
    return Requests(
        pa.array([100 + user for user in users], pa.int64()),
        np.array(users, np.int32),
        Histories.from_lists(histories),
        ItemLists.from_lists(seen or [[] for _ in users]),
    )


def lists(table: pa.Table) -> dict[int, str]:
    found: dict[int, str] = {}
    for row in table.to_pylist():
        found[row["user_id"]] = found.get(row["user_id"], "") + row["item_id"]
        assert row["rank"] == len(found[row["user_id"]])
    return found


@pytest.mark.parametrize("factored", [False, True])
def test_best_first_and_ties_by_catalogue_order(factored: bool) -> None:
    table = recommend(world(np.nan_to_num(SCORES, neginf=-9), factored=factored), ask([0, 1], [[], []]), Options(n=3))
    assert lists(table) == {100: "abc", 101: "abc"}
    assert table["score"].to_pylist() == [5, 4, 3, 1, 1, 1]
    assert set(table["source"].to_pylist()) == {"model"}


def test_history_and_further_seen_items_are_left_out_unless_asked_for() -> None:
    requests = ask([0], [[0, 2]], [[1]])
    assert seen_items(requests).row(0).tolist() == [0, 2, 1]
    assert lists(recommend(world(), requests, Options(n=2))) == {100: "de"}
    assert lists(recommend(world(), requests, Options(n=2, filter_seen=False))) == {100: "ab"}


def test_allowed_items_bind_the_model_and_the_fallback() -> None:
    allowed = np.array([False, True, False, True, True])
    requests = ask([0, -1], [[1], []])
    assert lists(recommend(world(), requests, Options(n=3, allowed_I=allowed))) == {100: "de", 99: "bde"}


def test_no_opinion_is_filled_by_popularity_named_and_scored_below() -> None:
    rows = recommend(world(), ask([2], [[]]), Options(n=5)).to_pylist()
    assert [row["item_id"] for row in rows] == ["b", "d", "a", "e", "c"]
    assert [row["source"] for row in rows] == ["model"] * 4 + ["fallback:popularity"]
    assert rows[4]["score"] == pytest.approx(-1 - 1 + 3 / 8)  # last model score - 1 + share of users


def test_unknown_user_gets_popularity_alone_scored_by_the_share_of_users() -> None:
    rows = recommend(world(), ask([-1], [[1]]), Options(n=4)).to_pylist()
    assert [row["item_id"] for row in rows] == ["c", "d", "a", "e"]
    assert [row["score"] for row in rows] == pytest.approx([3 / 8, 3 / 8, 1 / 8, 0])
    assert {row["source"] for row in rows} == {"fallback:popularity"}


def test_items_the_model_never_saw_come_from_the_fallback_only() -> None:
    rows = recommend(world(scorable=[True, False, True, True, True]), ask([0], [[]]), Options(n=5)).to_pylist()
    assert [(row["item_id"], row["source"]) for row in rows][-1] == ("b", "fallback:popularity")


def test_without_fallback_short_lists_stay_short_and_nothing_is_invented() -> None:
    table = recommend(world(), ask([-1, 2], [[], []]), Options(n=5, fallback=()))
    assert lists(table) == {102: "bdae"}


def test_fewer_items_than_rows_gives_the_honest_maximum() -> None:
    assert lists(recommend(world(), ask([0], [[0, 1, 2]]), Options(n=4))) == {100: "de"}


def test_the_answer_does_not_depend_on_the_other_requests() -> None:
    rng = np.random.default_rng(0)
    bundle = world(rng.integers(0, 3, (40, 5)).astype(np.float32))
    histories = [rng.choice(5, rng.integers(0, 4), replace=False).tolist() for _ in range(40)]
    together = ask(list(range(40)), histories)
    whole = recommend(bundle, together, Options(n=4))
    for block in (1, 20, 60):  # bytes: one, one and three users at a time
        assert recommend(bundle, together, Options(n=4, block_bytes=block)).equals(whole.combine_chunks())
    single = [recommend(bundle, together.slice(user, user + 1), Options(n=4)) for user in range(40)]
    assert pa.concat_tables(single).combine_chunks().equals(whole.combine_chunks())


def test_nested_holds_the_same_rows() -> None:
    table = recommend(world(), ask([0, 2], [[0], []]), Options(n=3))
    rows = nested(table).to_pylist()
    assert [row["user_id"] for row in rows] == [100, 102]
    assert [row["item_ids"] for row in rows] == [["b", "c", "d"], ["b", "d", "a"]]
    assert [score for row in rows for score in row["scores"]] == table["score"].to_pylist()


def test_no_requests_give_an_empty_table_of_the_same_schema() -> None:
    full = recommend(world(), ask([0], [[]]), Options(n=1))
    assert recommend(world(), ask([], []), Options(n=1)).schema == full.schema


def test_nan_scores_stop_the_run() -> None:
    with pytest.raises(ModelError, match="table gave NaN"):
        recommend(world(np.full((1, 5), np.nan, np.float32)), ask([0], [[]]), Options(n=1))


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"recommend\.n=6 is larger than the catalogue of 5"):
        check_options(world(), Options(n=6))
    with pytest.raises(ConfigError, match=r"recommend\.deny and recommend\.candidates leave no item"):
        check_options(world(), Options(n=1, allowed_I=np.zeros(5, np.bool_)))


def test_unknown_item_ids_are_named() -> None:
    assert world().item_rows(pa.array(["c", "a"]), "deny").tolist() == [2, 0]
    with pytest.raises(DataError, match="deny: item 'x' is not in the catalogue"):
        world().item_rows(pa.array(["c", "x"]), "deny")


def test_predictions_of_single_pairs_are_the_scores_of_the_block() -> None:
    targets = ItemLists.from_lists([[0, 4], [2], [1]])
    expected = [5, 1, np.nan, np.nan]  # (0,a) (0,e) (2,c): no opinion, (unknown user, b)
    for factored in (False, True):
        scores = SCORES if not factored else np.nan_to_num(SCORES, neginf=np.nan)
        requests = ask([0, 2, -1], [[], [], []])
        np.testing.assert_array_equal(predict(world(scores, factored=factored), requests, targets), expected)


# -- a chain of fallbacks --------------------------------------------------------------------------------------------


def chained(first: list[list[float]], second: list[list[float]], knows: list[bool] | None = None) -> Bundle:
    bundle = world(np.array(first, np.float32), knows)
    bundle.fallbacks["other"] = TableScorer(np.array(second, np.float32), np.array([True, True, True, False, True]))
    return bundle


def test_fallbacks_fill_one_after_the_other_and_each_row_names_its_source() -> None:
    nothing = -np.inf
    bundle = chained([[nothing, nothing, 7, nothing, nothing]], [[9, nothing, 99, 5, -3]])
    options = Options(n=5, fallback=("other", "popularity"))
    rows = recommend(bundle, ask([0], [[]]), options).to_pylist()
    assert [(row["item_id"], row["source"].removeprefix("fallback:")) for row in rows] == [
        ("c", "model"),
        ("a", "other"),  # d is not scorable for it, c is listed already
        ("e", "other"),
        ("b", "popularity"),
        ("d", "popularity"),
    ]
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_a_fallback_that_does_not_know_the_user_passes_to_the_next() -> None:
    bundle = chained([[1] * 5], [[5] * 5])
    rows = recommend(bundle, ask([-1], [[]]), Options(n=2, fallback=("other", "popularity"))).to_pylist()
    assert [row["source"] for row in rows] == ["fallback:popularity"] * 2
    assert recommend(bundle, ask([-1], [[]]), Options(n=2, fallback=("other",))).num_rows == 0


@given(
    scores=st.lists(
        st.lists(st.sampled_from([-np.inf, -2.0, 0.0, 1.0, 1e6]), min_size=5, max_size=5), min_size=2, max_size=2
    ),
    seen=st.sets(st.integers(0, 4)),
    allowed=st.lists(st.booleans(), min_size=5, max_size=5),
    n=st.integers(1, 5),
)
def test_a_chain_repeats_nothing_breaks_no_rule_and_never_rises(
    scores: list[list[float]], seen: set[int], allowed: list[bool], n: int
) -> None:
    bundle = chained([scores[0]], [scores[1]])
    options = Options(n=n, allowed_I=np.array(allowed), fallback=("other", "popularity"))
    rows = recommend(bundle, ask([0], [sorted(seen)]), options).to_pylist()
    listed = ["abcde".index(row["item_id"]) for row in rows]
    assert len(set(listed)) == len(listed) == min(n, sum(allowed[item] for item in range(5) if item not in seen))
    assert not set(listed) & seen and all(allowed[item] for item in listed)
    values = [row["score"] for row in rows]
    assert values == sorted(values, reverse=True)
    order = [bundle.sources.index(row["source"]) for row in rows]
    assert order == sorted(order, key=[0, 2, 1].index)
