"""Exact search against a full sort of float64 scores: ties, masks, bounds, blocks, threads, and what must be refused.

Shape suffixes: B queries, D dimension, I items.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from recsys_ray.base.blas import one_blas_thread
from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import BoolArray, FloatArray, ItemLists
from recsys_ray.retrieval import ExactIndex, Index, TopK, top_k_scores
from recsys_ray.retrieval.exact import product as product_module
from recsys_ray.retrieval.exact import scan_items as scan_items_module
from recsys_ray.retrieval.exact import search as search_module
from recsys_ray.retrieval.exact.product import BitsArray
from recsys_ray.retrieval.exact.ranking import (
    key_item,
    key_score,
    lane_bound,
    ordered,
    rank_key,
    smallest_first,
)

PRECISIONS = ("bfloat16", "float32")


def full_sort(scores_BI: FloatArray, k: int, exclude: ItemLists | None, allowed_I: BoolArray | None) -> TopK:
    """The definition: leave out, sort by score descending then item row, cut."""
    num_rows = len(scores_BI)
    top = TopK.nothing(num_rows, k)
    for row in range(num_rows):
        fits_I = scores_BI[row] > -np.inf
        if allowed_I is not None:
            fits_I &= allowed_I
        if exclude is not None:
            fits_I[exclude.row(row)] = False
        items = np.flatnonzero(fits_I)
        best = items[np.lexsort((items, -scores_BI[row, items]))][:k]
        top.rows_BK[row, : len(best)] = best
        top.scores_BK[row, : len(best)] = scores_BI[row, best]
    return top


def true_scores(queries_BD: FloatArray, items_ID: FloatArray, bias_I: FloatArray | None = None) -> FloatArray:
    """More exact than float64, then rounded once."""
    scores = queries_BD.astype(np.longdouble) @ items_ID.astype(np.longdouble).T
    return (scores if bias_I is None else scores + bias_I).astype(np.float32)


def assert_same(found: TopK, expected: TopK) -> None:
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)
    np.testing.assert_array_equal(found.scores_BK, expected.scores_BK)


def normal(rng: np.random.Generator, *shape: int) -> FloatArray:
    return rng.standard_normal(shape).astype(np.float32)


def random_lists(rng: np.random.Generator, num_rows: int, num_items: int, longest: int) -> ItemLists:
    """Unsorted, with repeats."""
    return ItemLists.from_lists([rng.integers(0, num_items, rng.integers(0, longest + 1)) for _ in range(num_rows)])


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(count)
    numba.set_num_threads(min(count, before[1]))
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])


@contextmanager
def counted_exact_passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The query numbers that no scan could settle."""
    rows: list[int] = []
    original = search_module.Search._exact_pass

    def counting(search: search_module.Search, rows_R: np.ndarray) -> None:
        rows.extend(int(row) for row in rows_R)
        original(search, rows_R)

    with monkeypatch.context() as patch:
        patch.setattr(search_module.Search, "_exact_pass", counting)
        yield rows


def only_bfloat16(items_ID: FloatArray) -> ExactIndex:
    """An index that goes from bfloat16 straight to the exact pass, which can be counted."""
    index = ExactIndex(items_ID, precision="bfloat16")
    index._scans = ("bfloat16",)
    return index


# --- the list is that of a full sort ---


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("seed", range(24))
def test_equals_a_full_sort(seed: int, precision: str) -> None:
    rng = np.random.default_rng(seed)
    num_rows, num_items, dim = (int(rng.integers(1, high)) for high in (70, 2500, 80))
    k = int(rng.integers(1, 60))
    queries_BD, items_ID = normal(rng, num_rows, dim), normal(rng, num_items, dim)
    if seed % 3 == 0:  # masses of ties
        queries_BD, items_ID = np.round(queries_BD), np.round(items_ID)
    if seed % 3 == 1:  # uneven lengths, so that queries finish early
        items_ID *= (1.0 + rng.permutation(num_items)[:, None]).astype(np.float32) ** np.float32(-0.7)
    bias_I = normal(rng, num_items) if seed % 2 else None
    exclude = random_lists(rng, num_rows, num_items, 80) if seed % 4 < 2 else None
    allowed_I = rng.random(num_items) < rng.random() if seed % 5 < 2 else None
    found = ExactIndex(items_ID, bias_I, precision=precision).search(queries_BD, k, exclude, allowed_I)
    assert_same(found, full_sort(true_scores(queries_BD, items_ID, bias_I), k, exclude, allowed_I))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_differences_in_the_last_bit_decide(precision: str) -> None:
    rng = np.random.default_rng(5)
    base_D = normal(rng, 1, 33)
    items_ID = np.repeat(base_D, 3000, axis=0)
    for row in range(0, 3000, 3):  # every third item differs from the others in one bit of one coordinate
        d = int(rng.integers(33))
        items_ID[row, d] = np.nextafter(items_ID[row, d], np.float32(9 * (-1) ** row))
    queries_BD = np.concatenate([base_D, normal(rng, 9, 33)])
    found = ExactIndex(items_ID, precision=precision).search(queries_BD, 25)
    assert_same(found, full_sort(true_scores(queries_BD, items_ID), 25, None, None))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_equal_items_come_in_row_order(precision: str) -> None:
    items_ID = np.ones((500, 8), np.float32)
    found = ExactIndex(items_ID, precision=precision).search(np.ones((3, 8), np.float32), 7)
    assert found.rows_BK.tolist() == [list(range(7))] * 3
    assert (found.scores_BK == 8.0).all()


def test_a_query_of_zeros_ranks_by_bias_then_row() -> None:
    bias_I = np.array([0.0, 2.0, -1.0, 2.0, 0.0] * 100, np.float32)
    found = ExactIndex(normal(np.random.default_rng(0), 500, 6), bias_I).search(np.zeros((2, 6), np.float32), 3)
    assert found.rows_BK.tolist() == [[1, 3, 6]] * 2


def test_without_dimensions_the_bias_ranks() -> None:
    bias_I = np.array([1.0, 3.0, -0.0, 0.0, 3.0], np.float32)
    index = ExactIndex(np.zeros((5, 0), np.float32), bias_I)
    found = index.search(np.zeros((2, 0), np.float32), 5, ItemLists.from_lists([[], [1, 1]]))
    assert found.rows_BK.tolist() == [[1, 4, 0, 2, 3], [4, 0, 2, 3, -1]]
    assert found.scores_BK[1].tolist() == [3.0, 1.0, 0.0, 0.0, -np.inf]


@pytest.mark.parametrize("seed", range(6))
def test_one_order_for_all_is_a_full_sort_of_the_bias(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_rows, num_items, k = (int(rng.integers(1, high)) for high in (60, 400, 500))
    bias_I = rng.integers(-3, 4, num_items).astype(np.float32)  # many ties
    exclude = random_lists(rng, num_rows, num_items, 2 * num_items)  # some lists hide nearly all
    allowed_I = rng.random(num_items) < rng.choice([0.2, 0.9])
    found = ExactIndex(np.zeros((num_items, 0), np.float32), bias_I).search(
        np.zeros((num_rows, 0), np.float32), k, exclude, allowed_I
    )
    assert_same(found, full_sort(np.tile(bias_I, (num_rows, 1)), k, exclude, allowed_I))


@pytest.mark.parametrize("k", [300, 1000, 2999, 5000])
def test_long_lists(k: int) -> None:
    rng = np.random.default_rng(k)
    queries_BD, items_ID = normal(rng, 6, 24), normal(rng, 3000, 24)
    exclude = random_lists(rng, 6, 3000, 500)
    found = ExactIndex(items_ID).search(queries_BD, k, exclude)
    assert found.rows_BK.shape == (6, k)
    assert_same(found, full_sort(true_scores(queries_BD, items_ID), k, exclude, None))


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-19, 1e17, 1e19])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_any_magnitude(scale: float, precision: str) -> None:
    rng = np.random.default_rng(2)
    queries_BD = (normal(rng, 5, 12) * np.float64(scale)).astype(np.float32)
    items_ID = (normal(rng, 900, 12) * min(np.float64(scale), 1e18)).astype(np.float32)
    found = ExactIndex(items_ID, precision=precision).search(queries_BD, 10)
    assert_same(found, full_sort(true_scores(queries_BD, items_ID), 10, None, None))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_bias_far_larger_or_smaller_than_the_products(precision: str) -> None:
    rng = np.random.default_rng(8)
    queries_BD, items_ID = normal(rng, 20, 16), normal(rng, 1200, 16)
    for scale in (1e-6, 1e6):
        bias_I = normal(rng, 1200) * np.float32(scale)
        found = ExactIndex(items_ID, bias_I, precision=precision).search(queries_BD, 9)
        assert_same(found, full_sort(true_scores(queries_BD, items_ID, bias_I), 9, None, None))


# --- and does not depend on how it was computed ---


def test_batch_single_block_and_thread_give_the_same_bits() -> None:
    rng = np.random.default_rng(3)
    queries_BD, items_ID, bias_I = normal(rng, 301, 20), normal(rng, 1700, 20), normal(rng, 1700)
    exclude = random_lists(rng, 301, 1700, 40)
    with threads(1):
        whole = ExactIndex(items_ID, bias_I).search(queries_BD, 12, exclude)
    for count in (1, 2, 3):
        with threads(count):
            for block_bytes in (1, 1 << 18, 1 << 26):
                index = ExactIndex(items_ID, bias_I, block_bytes=block_bytes)
                assert_same(index.search(queries_BD, 12, exclude), whole)
            assert torch.get_num_threads() == count
    index = ExactIndex(items_ID, bias_I)
    for row in range(0, 301, 7):
        single = index.search(queries_BD[row : row + 1], 12, exclude.slice(row, row + 1))
        assert_same(single, TopK(whole.rows_BK[row : row + 1], whole.scores_BK[row : row + 1]))


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    rng = np.random.default_rng(4)
    index, queries_BD = ExactIndex(np.round(normal(rng, 4000, 10) * 2)), np.round(normal(rng, 30, 10) * 2)
    longest = index.search(queries_BD, 900)
    for k in (1, 2, 20, 150):
        assert_same(index.search(queries_BD, k), TopK(longest.rows_BK[:, :k], longest.scores_BK[:, :k]))


def test_masks_can_change_between_calls() -> None:
    rng = np.random.default_rng(6)
    queries_BD, items_ID = normal(rng, 12, 16), normal(rng, 1000, 16)
    index, scores_BI = ExactIndex(items_ID), true_scores(queries_BD, items_ID)
    first_I, second_I = rng.random(1000) < 0.2, rng.random(1000) < 0.9
    for allowed_I in (first_I, second_I, None, first_I, np.ones(1000, bool)):
        assert_same(index.search(queries_BD, 8, None, allowed_I), full_sort(scores_BI, 8, None, allowed_I))
    first_I[:] = ~first_I  # the caller's own array, changed in place
    assert_same(index.search(queries_BD, 8, None, first_I), full_sort(scores_BI, 8, None, first_I))


def test_read_only_arrays_are_enough() -> None:
    rng = np.random.default_rng(1)
    queries_BD, items_ID, bias_I = normal(rng, 9, 8), normal(rng, 800, 8), normal(rng, 800)
    expected = full_sort(true_scores(queries_BD, items_ID, bias_I), 5, None, None)
    for array in (queries_BD, items_ID, bias_I):
        array.flags.writeable = False
    assert_same(ExactIndex(items_ID, bias_I).search(queries_BD, 5), expected)


def test_lower_float32_precision_of_torch_changes_nothing() -> None:
    rng = np.random.default_rng(9)
    queries_BD, items_ID = normal(rng, 64, 48), normal(rng, 3000, 48)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = ExactIndex(items_ID, precision="float32").search(queries_BD, 20)
    finally:
        torch.set_float32_matmul_precision(before)
    assert_same(found, full_sort(true_scores(queries_BD, items_ID), 20, None, None))


# --- torch is a means ---


@pytest.mark.slow
def test_torch_is_loaded_only_where_it_pays() -> None:
    """In a process without torch: float32 at first, bfloat16 once enough was asked; the lists are the same."""
    code = """
import sys
import numpy as np
from recsys_ray.retrieval.exact import index as module, product
rng = np.random.default_rng(0)
queries_BD, items_ID = (rng.normal(size=(count, 24)).astype(np.float32) for count in (300, 5000))
module.bfloat16_is_fast = lambda: True
index = module.ExactIndex(items_ID, rng.normal(size=5000).astype(np.float32))
first = index.search(queries_BD, 10)
assert "torch" not in sys.modules and index._scans == ("float32",)
module.TORCH_PAYS_FROM = 2.5 * 300 * 5000 * 24
index.search(queries_BD, 10)
assert "torch" not in sys.modules
third = index.search(queries_BD, 10)
assert "torch" in sys.modules and index._scans == ("bfloat16", "float32")
assert np.array_equal(first.rows_BK, third.rows_BK) and np.array_equal(first.scores_BK, third.scores_BK)
assert module.ExactIndex(items_ID)._scans == ("bfloat16", "float32")  # it is there, so it is used
module.bfloat16_is_fast = lambda: False
assert module.ExactIndex(items_ID)._scans == ("float32",)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_bfloat16_is_where_torch_says_it_is() -> None:
    capabilities = torch.cpu.get_capabilities()
    expected = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    assert product_module.bfloat16_is_fast() == bool(expected)


@pytest.mark.slow
def test_a_half_imported_torch_is_waited_for(tmp_path: Path) -> None:
    """Another thread is importing it: nobody may see the module before it is whole."""
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(0.5)\nwhole = True\n")
    code = """
import importlib, sys, threading, time
from recsys_ray.retrieval.exact.product import loaded_torch
thread = threading.Thread(target=importlib.import_module, args=("torch",))
thread.start()
while "torch" not in sys.modules: time.sleep(0.01)
assert loaded_torch().whole
"""
    variables = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=variables)
    assert done.returncode == 0, done.stderr


def test_threads_of_blas_are_put_back_by_the_last_one_out() -> None:
    def counts() -> list[int]:
        return [found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"]

    with threadpool_limits(2, "blas"):
        before = counts()
        first, second = one_blas_thread(), one_blas_thread()
        with first:
            second.__enter__()
            assert set(counts()) == {1}
        assert set(counts()) == {1}
        second.__exit__(None, None, None)
        assert counts() == before and 2 in before


# --- the scan ---


@pytest.mark.parametrize("precision", PRECISIONS)
def test_ordinary_queries_are_settled_by_the_scan(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    queries_BD, items_ID, bias_I = normal(rng, 200, 64), normal(rng, 6000, 64), normal(rng, 6000)
    with counted_exact_passes(monkeypatch) as rows:
        ExactIndex(items_ID, bias_I, precision=precision).search(queries_BD, 20)
    assert rows == []


@pytest.mark.parametrize("num_items", [256, 260])  # with and without a first threshold from a whole first tile
@pytest.mark.parametrize("side", ["items", "queries"])
def test_rounding_as_bad_as_it_can_be(side: str, num_items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error reaches its Cauchy-Schwarz bound: every coordinate rounds by half a unit, all in one direction."""
    down, up, half = 1.0 + 2.0**-8, 1.0 + 2.0**-8 + 2.0**-20, np.ones(32)
    signs, best_D, worse_D = (
        np.r_[half, -half, 1],
        np.r_[half * down, half * up, 0],
        np.r_[half * up, half * down, -1e-3],
    )
    query_D = signs
    if side == "queries":
        query_D, best_D, worse_D = (
            np.r_[half * down, -half * up, 1],
            np.r_[half, half, 0],
            np.r_[0 * half, 0 * half, -1e-3],
        )
    items_ID = np.zeros((num_items, 65), np.float32)
    items_ID[:, 64] = -5.0
    items_ID[:130] = worse_D  # more than are looked at before the first is turned away
    items_ID[1:60:2] = best_D
    with counted_exact_passes(monkeypatch) as rows:
        found = only_bfloat16(items_ID).search(query_D.astype(np.float32)[None], 30)
    assert found.rows_BK[0].tolist() == list(range(1, 60, 2))
    assert rows == []


def test_rounding_of_the_finished_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost on the way in, and all rough scores are 64."""
    items_ID = np.full((100, 2), 64.0, np.float32)
    items_ID[:, 1] = np.random.default_rng(0).permutation(100) * 2.0**-9
    queries_BD = np.ones((1, 2), np.float32)
    with counted_exact_passes(monkeypatch) as rows:
        found = only_bfloat16(items_ID).search(queries_BD, 5)
    assert_same(found, full_sort(true_scores(queries_BD, items_ID), 5, None, None))
    assert rows == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_short_item_with_a_large_bias_is_not_cut_off(precision: str) -> None:
    rng = np.random.default_rng(11)
    items_ID = normal(rng, 20_000, 4)
    bias_I = np.zeros(20_000, np.float32)
    items_ID[rng.choice(20_000, 7, replace=False)] *= np.float32(1e-3)
    bias_I[np.linalg.norm(items_ID, axis=1) < 1e-2] = 100.0
    queries_BD = normal(rng, 5, 4)
    found = ExactIndex(items_ID, bias_I, precision=precision).search(queries_BD, 7)
    assert (found.scores_BK > 90.0).all()
    assert_same(found, full_sort(true_scores(queries_BD, items_ID, bias_I), 7, None, None))


def test_arithmetic_worse_than_assumed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(10)
    queries_BD, items_ID = normal(rng, 40, 32), normal(rng, 2000, 32)
    multiply = search_module.multiply

    def sloppy(left: BitsArray, right: BitsArray, out: BitsArray) -> None:
        multiply(left, right, out)
        product_module.as_tensor(out).mul_(0.5)

    monkeypatch.setattr(search_module, "multiply", sloppy)
    with counted_exact_passes(monkeypatch) as rows:
        found = ExactIndex(items_ID).search(queries_BD, 10)
    assert sorted(rows) == list(range(40))
    assert_same(found, full_sort(true_scores(queries_BD, items_ID), 10, None, None))


def test_a_precision_that_settles_too_little_is_dropped() -> None:
    rng = np.random.default_rng(12)
    items_ID = normal(rng, 1, 16) + normal(rng, 3000, 16) * np.float32(1e-4)
    queries_BD = np.abs(normal(rng, 128, 16))
    index = ExactIndex(items_ID, precision="bfloat16")
    expected = full_sort(true_scores(queries_BD, items_ID), 10, None, None)
    assert_same(index.search(queries_BD, 10), expected)
    assert index._scans == ("float32",)
    assert_same(index.search(queries_BD, 10), expected)


def test_early_finish_skips_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(13)
    items_ID = normal(rng, 40_000, 16)
    items_ID[1000:] *= np.float32(0.01)
    scored = []
    multiply = search_module.multiply

    def counting(left: BitsArray, right: BitsArray, out: BitsArray) -> None:
        scored.append(out.size)
        multiply(left, right, out)

    monkeypatch.setattr(search_module, "multiply", counting)
    queries_BD = normal(rng, 50, 16)
    found = ExactIndex(items_ID).search(queries_BD, 5)
    assert sum(scored) < 0.5 * 50 * 40_000
    assert_same(found, full_sort(true_scores(queries_BD, items_ID), 5, None, None))


def test_the_pieces_of_a_bias_add_up_exactly() -> None:
    bias_I = np.concatenate([normal(np.random.default_rng(0), 999), [0.0, -0.0, 1.0 + 2.0**-23]]).astype(np.float32)
    for name in PRECISIONS:
        pieces = scan_items_module.bias_pieces(bias_I, scan_items_module.scan_precision(name, 10))
        summed = sum(product_module.as_tensor(piece).to(torch.float64) for piece in pieces)
        np.testing.assert_array_equal(summed.numpy(), bias_I.astype(np.float64))


def test_stored_scores_compare_like_floats() -> None:
    rng = np.random.default_rng(14)
    values = np.concatenate([normal(rng, 300), [0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, -np.inf]]).astype(np.float32)
    halves = (values.view(np.uint32) >> np.uint32(16)).astype(np.uint32)
    rounded = (halves << np.uint32(16)).view(np.float32)
    for bound in values:
        flip, cut = lane_bound(ordered(bound), 0)
        np.testing.assert_array_equal((values.view(np.uint32) ^ flip) >= cut, values >= bound)
        flip, cut = lane_bound(ordered(bound), 16)
        passed = (halves ^ flip) >= cut
        assert passed[rounded >= bound].all()
        assert not passed[rounded < bound - abs(bound) * np.float32(0.02) - np.float32(1e-38)].any()


def test_keys_order_by_score_then_row() -> None:
    rng = np.random.default_rng(15)
    scores = np.round(normal(rng, 400) * 3).astype(np.float32) / np.float32(3)
    items = rng.permutation(400).astype(np.int32)
    keys = np.array([rank_key(score, item) for score, item in zip(scores, items, strict=True)], np.int64)
    expected = np.lexsort((items, -scores))
    assert np.argsort(keys).tolist() == expected.tolist()
    assert [key_item(key) for key in keys] == items.tolist()
    np.testing.assert_array_equal([key_score(key) for key in keys], scores)
    for k in (1, 7, 399, 400):
        shuffled = keys.copy()
        smallest_first(shuffled, 400, k)
        assert sorted(shuffled[:k]) == sorted(keys)[:k] and shuffled[k - 1] == sorted(keys)[k - 1]


# --- finished score blocks ---


@pytest.mark.parametrize("seed", range(12))
def test_score_blocks_equal_a_full_sort(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_rows, num_items, k = (int(rng.integers(1, high)) for high in (400, 900, 70))
    scores_BI = normal(rng, num_rows, num_items)
    if seed % 2:
        scores_BI = np.round(scores_BI)
    scores_BI[rng.random(scores_BI.shape) < 0.3] = -np.inf
    exclude = random_lists(rng, num_rows, num_items, 50) if seed % 3 else None
    allowed_I = rng.random(num_items) < rng.random() if seed % 4 == 0 else None
    expected = full_sort(scores_BI, k, exclude, allowed_I)
    for count in (1, 2):
        with threads(count):
            assert_same(top_k_scores(scores_BI, k, exclude, allowed_I), expected)


def test_constant_scores_give_the_first_rows() -> None:
    for value in (0.0, -3.5, 1e30):
        found = top_k_scores(np.full((2, 5000), value, np.float32), 1200)
        assert found.rows_BK.tolist() == [list(range(1200))] * 2
    mixed = np.tile(np.array([0.0, -0.0], np.float32), (1, 50))
    assert top_k_scores(mixed, 100).rows_BK.tolist() == [list(range(100))]


def test_the_index_and_the_score_block_agree() -> None:
    rng = np.random.default_rng(16)
    queries_BD, items_ID = np.round(normal(rng, 40, 9)), np.round(normal(rng, 1500, 9))
    exclude = random_lists(rng, 40, 1500, 30)
    from_index = ExactIndex(items_ID).search(queries_BD, 30, exclude)
    assert_same(top_k_scores(queries_BD @ items_ID.T, 30, exclude), from_index)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 500, 999])
def test_a_score_that_is_no_number_is_refused(bad: float, column: int) -> None:
    scores_BI = normal(np.random.default_rng(0), 300, 1000)
    scores_BI[270, column] = bad
    with pytest.raises(ModelError, match="row 270 holds NaN"):
        top_k_scores(scores_BI, 3)


# --- edges and refusals ---


def test_nothing_to_ask_or_to_find() -> None:
    rng = np.random.default_rng(0)
    items_ID, queries_BD = normal(rng, 30, 4), normal(rng, 3, 4)
    index = ExactIndex(items_ID)
    nothing = TopK.nothing(3, 5)
    assert index.search(np.zeros((0, 4), np.float32), 5).rows_BK.shape == (0, 5)
    assert_same(index.search(queries_BD, 5, ItemLists.from_lists([range(30)] * 3)), nothing)
    assert_same(index.search(queries_BD, 5, None, np.zeros(30, bool)), nothing)
    assert_same(ExactIndex(np.zeros((0, 4), np.float32)).search(queries_BD, 5), nothing)
    assert_same(top_k_scores(np.full((3, 30), -np.inf, np.float32), 5), nothing)
    assert_same(top_k_scores(np.zeros((3, 0), np.float32), 5), nothing)
    assert top_k_scores(np.zeros((0, 30), np.float32), 5).rows_BK.shape == (0, 5)


def test_all_but_a_few_excluded() -> None:
    rng = np.random.default_rng(0)
    queries_BD, items_ID = normal(rng, 4, 16), normal(rng, 2000, 16)
    exclude = ItemLists.from_lists([rng.permutation(2000)[3:] for _ in range(4)])
    expected = full_sort(true_scores(queries_BD, items_ID), 10, exclude, None)
    assert (expected.rows_BK[:, :3] >= 0).all() and (expected.rows_BK[:, 3:] == -1).all()
    assert_same(ExactIndex(items_ID).search(queries_BD, 10, exclude), expected)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("num_hidden", [1, 25, 44, 45, 100])
def test_the_best_are_the_seen_ones(num_hidden: int, precision: str) -> None:
    rng = np.random.default_rng(17)
    queries_BD, items_ID = normal(rng, 30, 24), normal(rng, 8192, 24)
    scores_BI = true_scores(queries_BD, items_ID)
    exclude = ItemLists.from_lists(list(full_sort(scores_BI, num_hidden, None, None).rows_BK))
    found = ExactIndex(items_ID, precision=precision).search(queries_BD, 20, exclude)
    assert_same(found, full_sort(scores_BI, 20, exclude, None))


def test_an_exact_index_is_an_index() -> None:
    index = ExactIndex(np.zeros((3, 2), np.float32))
    assert isinstance(index, Index) and index.is_exact and (index.num_items, index.dim) == (3, 2)


def test_numbers_that_are_none_are_refused() -> None:
    good, bad = np.ones((6, 3), np.float32), np.ones((6, 3), np.float32)
    bad[4, 1] = np.nan
    with pytest.raises(ModelError, match="item vectors: row 4 holds NaN or inf"):
        ExactIndex(bad)
    with pytest.raises(ModelError, match="queries: row 4 holds NaN or inf"):
        ExactIndex(good).search(bad, 2)
    with pytest.raises(ModelError, match="item bias: row 4 holds NaN or inf"):
        ExactIndex(good, bad[:, 1] * np.float32(2))
    with pytest.raises(ModelError, match="query 5: a score is beyond float32"):
        queries_BD = good.copy()
        queries_BD[5] = 3e38
        ExactIndex(good).search(queries_BD, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ExactIndex(np.ones((3, 2))), "item vectors must be a float32 matrix, found float64"),
        (lambda: ExactIndex(np.ones(3, np.float32)), "item vectors must be a float32 matrix"),
        (lambda: ExactIndex([[1.0]]), "item vectors must be a float32 matrix, found list"),
        (lambda: ExactIndex(np.ones((3, 2), np.float32), np.ones(2, np.float32)), "2 entries for 3 items"),
        (lambda: ExactIndex(np.ones((3, 2), np.float32), precision="int8"), "found 'int8'"),
        (lambda: ExactIndex(np.ones((3, 2), np.float32), block_bytes=0), "block_bytes must be at least 1"),
        (lambda: search(np.ones((2, 5), np.float32), 1), "queries have 5 columns, the index has 2"),
        (lambda: search(np.ones((2, 2), np.float32), 0), "k must be at least 1, found 0"),
        (lambda: search(np.ones((2, 2), np.float32), 1, ItemLists.empty(3)), "exclude has 3 lists for 2 rows"),
        (lambda: search(np.ones((1, 2), np.float32), 1, ItemLists.from_lists([[3]])), "there are 3 items"),
        (lambda: search(np.ones((1, 2), np.float32), 1, ItemLists.from_lists([[-1]])), "item rows -1 to -1"),
        (lambda: search(np.ones((1, 2), np.float32), 1, None, np.ones(2, bool)), "allowed must be 3 booleans"),
        (lambda: search(np.ones((1, 2), np.float32), 1, None, np.ones(3)), "allowed must be 3 booleans"),
        (lambda: top_k_scores(np.ones((1, 2)), 1), "scores must be a float32 matrix"),
    ],
)
def test_what_does_not_fit_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ModelError, match=message):
        call()


def search(queries_BD: FloatArray, k: int, *filters: object) -> TopK:
    return ExactIndex(np.ones((3, 2), np.float32)).search(queries_BD, k, *filters)


# --- real histories ---


@pytest.mark.slow
def test_real_histories_are_left_out() -> None:
    path = Path(__file__).parents[2] / "../shared/datasets/gowalla/train.txt"
    if not path.exists():
        pytest.skip("no data set here")
    with path.open() as file:
        seen = ItemLists.from_lists(
            [[int(item) for item in line.split()[1:]] for line, _ in zip(file, range(60), strict=False)]
        )
    rng = np.random.default_rng(0)
    queries_BD, items_ID = normal(rng, len(seen), 64), normal(rng, 40_981, 64)
    popularity_I = np.bincount(seen.items_E, minlength=40_981)
    items_ID *= np.sqrt(1.0 + popularity_I)[:, None].astype(np.float32)
    found = ExactIndex(items_ID).search(queries_BD, 20, seen)
    assert_same(found, full_sort(true_scores(queries_BD, items_ID), 20, seen, None))
