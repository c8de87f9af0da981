"""Laws of ragged arrays: every operation against the same one on plain lists."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_ray.base import ragged
from recsys_ray.base.ragged import Ragged


def law(*strategies: Any) -> Any:
    """``given``, with the same examples in every run and no limit of time for one of them."""
    return lambda test: settings(deadline=None, derandomize=True, database=None)(given(*strategies)(test))


Rows = list[list[int]]

ROWS = st.lists(st.lists(st.integers(-1000, 1000), max_size=4), max_size=7)
SAME_LENGTH = st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=3), st.lists(st.integers(0, 9), max_size=3)))


@dataclass(frozen=True, slots=True)
class Named(Ragged):
    """Two values of different types per entry, and one per row."""

    names: pa.Array
    items_E: npt.NDArray[np.int16]
    halves_E: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Numbers(Ragged):
    items_E: npt.NDArray[np.int16]


def numbers(rows: Rows) -> Numbers:
    return Numbers(ragged.offsets_of(rows), np.array([value for row in rows for value in row], np.int16))


def named(rows: Rows) -> Named:
    plain = numbers(rows)
    names = pa.array([f"row {row}" for row in range(len(rows))], pa.string())
    return Named(plain.offsets_B1, names, plain.items_E, plain.items_E.astype(np.float32) / 2)


def lists(array: Numbers | Named) -> Rows:
    assert array.offsets_B1[0] == 0 and array.offsets_B1.dtype == np.int64 and array.items_E.dtype == np.int16
    if isinstance(array, Named):
        assert array.halves_E.dtype == np.float32 and (array.halves_E == array.items_E / 2).all()
    return [array.items_E[array.span(row)].tolist() for row in range(len(array))]


@law(ROWS)
def test_lists_come_back_as_they_went_in(rows: Rows) -> None:
    array = named(rows)
    assert lists(array) == rows and len(array) == len(rows)
    assert array.lengths_B.tolist() == [len(row) for row in rows]
    assert array.rows_E.tolist() == [number for number, row in enumerate(rows) for _ in row]
    assert ragged.places_in_rows(array.lengths_B).tolist() == [place for row in rows for place in range(len(row))]


@law(ROWS, st.data())
def test_a_slice_is_a_view(rows: Rows, data: Any) -> None:
    array = named(rows)
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    part = array.slice(start, stop)
    assert lists(part) == rows[start:stop]
    assert part.names.to_pylist() == array.names.to_pylist()[start:stop]
    assert part.items_E.base is not None and part.halves_E.base is not None
    if len(part.items_E):
        assert np.shares_memory(part.items_E, array.items_E)


@law(ROWS, st.data())
def test_take_gives_any_rows_in_any_order(rows: Rows, data: Any) -> None:
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
    array = named(rows)
    taken = array.take(np.array(wanted, np.int64))
    assert lists(taken) == [rows[row] for row in wanted]
    assert taken.names.to_pylist() == [f"row {row}" for row in wanted]
    rows_E, entries_E = array.entries_of(np.array(wanted, np.int64))
    assert rows_E.tolist() == taken.rows_E.tolist()
    assert array.items_E[entries_E].tolist() == taken.items_E.tolist()


def test_rows_that_follow_each_other_are_taken_without_a_copy() -> None:
    array = numbers([[1], [2, 3], [], [4]])
    assert np.shares_memory(array.take(np.array([1, 2, 3])).items_E, array.items_E)
    assert lists(array.take(np.array([3, 2, 1]))) == [[4], [], [2, 3]]
    assert lists(array.take(np.array([1, 1, 3]))) == [[2, 3], [2, 3], [4]]


@law(ROWS, st.data())
def test_only_and_split_keep_the_rows_and_choose_the_entries(rows: Rows, data: Any) -> None:
    array = named(rows)
    chosen = [[data.draw(st.booleans()) for _ in row] for row in rows]
    chosen_E = np.array([choice for row in chosen for choice in row], np.bool_)
    expected = [[v for v, c in zip(row, keep, strict=True) if c] for row, keep in zip(rows, chosen, strict=True)]
    others = [[v for v, c in zip(row, keep, strict=True) if not c] for row, keep in zip(rows, chosen, strict=True)]
    assert lists(array.only(chosen_E)) == expected
    assert [lists(part) for part in array.split(chosen_E)] == [expected, others]
    assert array.only(chosen_E).names.equals(array.names)
    assert array.per_row(chosen_E).tolist() == [len(row) for row in expected]
    assert ragged.kept_offsets(array.offsets_B1, chosen_E).tolist() == ragged.offsets_of(expected).tolist()


@law(SAME_LENGTH)
def test_join_puts_rows_beside_each_other(pairs: list[tuple[list[int], list[int]]]) -> None:
    first, second = [row for row, _ in pairs], [row for _, row in pairs]
    assert lists(named(first).join(named(second))) == [one + other for one, other in pairs]


@law(st.lists(ROWS, min_size=1, max_size=4))
def test_concatenate_puts_rows_below_each_other_and_slices_undo_it(parts: list[Rows]) -> None:
    whole = Numbers.concatenate([numbers(rows) for rows in parts])
    assert lists(whole) == [row for rows in parts for row in rows]
    edges = ragged.offsets_of(parts)
    cut = [whole.slice(int(edges[part]), int(edges[part + 1])) for part in range(len(parts))]
    assert [lists(part) for part in cut] == parts


@law(ROWS, st.data())
def test_arrow_lists_come_back_as_they_went_in_and_so_does_a_slice_of_them(rows: Rows, data: Any) -> None:
    columns = named(rows).to_columns()
    assert [column.type for column in columns] == [pa.list_(pa.int16()), pa.list_(pa.float32())]
    assert columns[0].to_pylist() == rows
    start = data.draw(st.integers(0, len(rows)))
    for whole in (columns[0].slice(start), pa.chunked_array([columns[0].slice(start)])):
        offsets_B1, values = ragged.of_list_array(whole)
        assert lists(Numbers(offsets_B1, values.to_numpy())) == rows[start:]


def test_a_null_list_is_an_empty_one() -> None:
    offsets_B1, values = ragged.of_list_array(pa.array([[1], None, [2, 3]], pa.list_(pa.int16())))
    assert lists(Numbers(offsets_B1, values.to_numpy())) == [[1], [], [2, 3]]


@pytest.mark.parametrize("rows", [[], [[]], [[], []], [[7]]])
def test_pickled_it_is_the_same(rows: Rows) -> None:
    array = named(rows)
    back = pickle.loads(pickle.dumps(array))
    assert lists(back) == rows and back.names.equals(array.names)


def test_values_that_do_not_fit_the_offsets_are_refused() -> None:
    array = named([[1, 2], []])
    for change in ({"items_E": array.items_E[1:]}, {"names": array.names[1:]}, {"offsets_B1": array.offsets_B1[:-2]}):
        with pytest.raises(AssertionError):
            replace(array, **change)
