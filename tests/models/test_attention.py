"""How events of a history reach each other: groups of rows, biases by distance and time, the low-pass filter, pointwise
attention; each against its definition, and the laws of an encoder with any of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys_ray.base.errors import ModelError
from recsys_ray.base.types import FitContext, Histories, ItemLists, Requests, TrainData
from recsys_ray.models.sequence import attention
from recsys_ray.models.sequence.attention import RelativeBias, low_pass, places_of, time_buckets
from recsys_ray.models.sequence.bert4rec import BERT4Rec
from recsys_ray.models.sequence.network import encode
from recsys_ray.models.sequence.sasrec import SASRec
from recsys_ray.models.sequence.scorer import SequenceScorer
from recsys_ray.models.sequence.transformer import PointwiseBlock, SequenceEncoder, TransformerShape
from tests.models.test_sasrec import ITEMS, PADDING, SHAPE, circle, random_encoder

SECOND = 1000
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "relative": {"positions": "relative"},
    "time": {"positions": "both", "relative_time": True},
    "filter": {"filter_share": 0.6, "low_frequencies": 2},
    "pointwise": {"attention": "pointwise", "positions": "both", "relative_time": True},
}
TIMES = [[0, 40, 41, 5000, 5001, 90_000], [7, 7, 8, 2_000_000, 2_000_001, 2_000_900]]


@pytest.fixture(params=KINDS)
def shape(request: pytest.FixtureRequest) -> TransformerShape:
    return replace(SHAPE, **KINDS[request.param])


def states(encoder: SequenceEncoder, items: list[int], seconds: list[int]) -> torch.Tensor:
    times = torch.tensor([seconds]) * SECOND
    found: torch.Tensor = encoder(torch.tensor([items]), times_BL=times).detach()
    return found


# --- laws of every encoder ---


def test_a_later_event_changes_nothing_earlier(shape: TransformerShape) -> None:
    encoder = random_encoder(shape)
    before = states(encoder, [3, 1, 4, 2, 5, 9], TIMES[0])
    after = states(encoder, [3, 1, 4, 2, 0, 7], [*TIMES[0][:4], 70_000, 80_000])
    torch.testing.assert_close(before[:4], after[:4], atol=1e-6, rtol=0)
    assert not torch.allclose(before[4:], after[4:], atol=1e-3)


@pytest.mark.parametrize("rows_at_once", [1, 2, 64])
def test_neither_padding_nor_other_rows_change_anything(
    shape: TransformerShape, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = random_encoder(shape)
    rows = [[2, 7], [1], [1, 2, 3, 4, 5], [9, 9, 2]]
    alone = [states(encoder, row, TIMES[0][: len(row)]) for row in rows]
    monkeypatch.setattr(attention, "GROUP_ROWS", rows_at_once)
    padded = torch.tensor([[PADDING] * (6 - len(row)) + row for row in rows])
    times = torch.tensor([[0] * (6 - len(row)) + TIMES[0][: len(row)] for row in rows]) * SECOND
    torch.testing.assert_close(encoder(padded, times_BL=times), torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["time", "pointwise"])
@pytest.mark.parametrize("model", [SASRec, BERT4Rec])
def test_what_counts_is_the_time_between_events(kind: str, model: type[SASRec]) -> None:
    """Moving a whole history in time changes nothing; moving one event does."""
    settings = {name: value for name, value in KINDS[kind].items() if name != "low_frequencies"}
    config = model(embedding_dim=8, epochs=2, batch_size=30, max_length=5, learning_rate=0.05, **settings)
    timed = circle()
    times_E = np.cumsum(np.random.default_rng(0).integers(0, 10_000, timed.histories.num_interactions)) * SECOND
    histories = replace(timed.histories, timestamps_E=times_E)
    scorer = config.fit_scorer(TrainData(histories, timed.items), FitContext(seed=3))

    def scores(moments: list[int]) -> np.ndarray:
        asked = Histories.from_lists([[3, 4, 5]], timestamps=[[moment * SECOND for moment in moments]])
        return np.asarray(scorer.score(Requests(pa.nulls(1), np.array([-1], np.int32), asked, ItemLists.empty(1))))

    found = scores([50, 90, 100_000])
    np.testing.assert_array_equal(found, scores([1_700_000_050, 1_700_000_090, 1_700_100_000]))
    assert np.abs(found - scores([50, 99_000, 100_000])).max() > 1e-6
    again = SequenceScorer.from_state(scorer.state())
    scorer = again
    np.testing.assert_array_equal(scores([50, 90, 100_000]), found)


def test_relative_positions_alone_know_no_place_from_the_end() -> None:
    """The state at the end of a prefix is the one inside a longer history: what is trained is what is asked."""
    encoder = random_encoder(replace(SHAPE, positions="relative"))
    whole = states(encoder, [3, 1, 4, 2], TIMES[0][:4])
    for length in (1, 2, 3):
        part = states(encoder, [3, 1, 4, 2][:length], TIMES[0][:length])
        torch.testing.assert_close(part, whole[:length], atol=1e-5, rtol=1e-5)


def test_a_mask_stands_at_the_time_of_the_newest_event() -> None:
    shape = replace(SHAPE, num_embeddings=ITEMS + 2, causal=False, positions="both", relative_time=True)
    encoder = random_encoder(shape)
    asked = Histories.from_lists([[1, 2]], timestamps=[[5 * SECOND, 900 * SECOND]])
    with torch.inference_mode():
        expected = states(encoder, [1, 2, ITEMS], [5, 900, 900])[-1]
    np.testing.assert_allclose(encode(encoder, asked, np.arange(1))[0], expected.numpy(), atol=1e-5)


# --- definitions ---


@pytest.mark.parametrize("max_length", [1, 6, 7])
@pytest.mark.parametrize("frequencies", [1, 2, 4])
def test_the_causal_filter_is_a_dense_transform_of_every_prefix(max_length: int, frequencies: int) -> None:
    if frequencies > max_length // 2 + 1:
        pytest.skip("there are not so many")
    values = np.random.default_rng(0).normal(size=max_length)
    found = low_pass(max_length, frequencies, max_length, causal=True).double().numpy() @ values
    for place in range(max_length):
        window = np.zeros(max_length)
        window[max_length - 1 - place :] = values[: place + 1]
        assert found[place] == pytest.approx(dense_low_pass(window, frequencies)[-1], abs=1e-6)


@pytest.mark.parametrize("length", [3, 6])
def test_the_filter_in_both_directions_is_a_dense_transform(length: int) -> None:
    values = np.random.default_rng(1).normal(size=length)
    window = np.concatenate([np.zeros(6 - length), values])
    found = low_pass(6, 2, length, causal=False).double().numpy() @ values
    np.testing.assert_allclose(found, dense_low_pass(window, 2)[-length:], atol=1e-6)


def dense_low_pass(window: np.ndarray, frequencies: int) -> np.ndarray:
    """By the matrix of the transform itself, a frequency and its mirror kept together."""
    size = len(window)
    places = np.arange(size)
    transform = np.exp(-2j * np.pi * np.outer(places, places) / size)
    spectrum = transform @ window
    spectrum[[min(f, size - f) >= frequencies for f in places]] = 0
    return np.asarray((transform.conj() @ spectrum / size).real)


def test_buckets_of_time_worked_by_hand() -> None:
    times = torch.tensor([[0, SECOND, 3 * SECOND, 10**15]])
    assert time_buckets(times)[0].tolist() == [[0, 2, 4, 63], [2, 0, 3, 63], [4, 3, 0, 63], [63, 63, 63, 0]]


@pytest.mark.parametrize("causal", [True, False])
def test_the_bias_is_looked_up_by_distance_and_time(causal: bool) -> None:
    bias = RelativeBias(5, 2, causal, by_place=True, by_time=True)
    assert bias.place is not None and bias.time is not None
    torch.nn.init.normal_(bias.place.weight), torch.nn.init.normal_(bias.time.weight)
    found = bias(3, torch.tensor([[0, 4 * SECOND, 9 * SECOND]]))
    for later, earlier, bucket in ((1, 0, 4), (2, 1, 5), (2, 0, 6), (1, 1, 0)):
        place = later - earlier + (0 if causal else 4)
        expected = bias.place.weight[place] + bias.time.weight[bucket]
        torch.testing.assert_close(found[0, :, later, earlier], expected)
    if not causal:
        torch.testing.assert_close(found[0, :, 0, 2], bias.place.weight[2] + bias.time.weight[6])


def test_pointwise_attention_is_its_definition() -> None:
    """One head, one row, an event at a time."""
    shape = replace(SHAPE, attention="pointwise", heads=1, positions="relative")
    torch.manual_seed(1)
    block, bias = PointwiseBlock(shape).eval(), RelativeBias(6, 1, True, by_place=True, by_time=False)
    assert bias.place is not None
    torch.nn.init.normal_(bias.place.weight)
    values = torch.randn(3, 8)
    places = places_of(torch.ones(1, 3, dtype=torch.bool), None, True, bias)
    with torch.no_grad():
        found = block(values, places)
        wide = torch.nn.functional.silu(block.widen(block.norm(values)))
        gate, query, key, value = wide.split(8, dim=1)
        for event in range(3):
            mixed = torch.zeros(8)
            for seen in range(event + 1):
                score = query[event] @ key[seen] + bias.place.weight[event - seen, 0]
                mixed += torch.nn.functional.silu(score) / shape.max_length * value[seen]
            expected = values[event] + block.narrow(block.inner_norm(mixed) * gate[event])
            torch.testing.assert_close(found[event], expected, atol=1e-5, rtol=1e-5)


# --- settings ---


def test_times_are_asked_for_where_there_are_none() -> None:
    data = circle()
    still = replace(data.histories, timestamps_E=np.zeros_like(data.histories.timestamps_E))
    with pytest.raises(ModelError, match="sasrec: relative_time needs timestamps, and the interactions have none"):
        SASRec(relative_time=True).fit_scorer(TrainData(still, data.items), FitContext())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "direct_au"}, "direct_au needs similarity: cosine"),
        ({"attention": "pointwise", "filter_share": 0.5}, "filter_share: goes with attention: softmax alone"),
        ({"filter_share": 0.5, "low_frequencies": 9, "max_length": 10}, "max_length 10 has 6 of them"),
    ],
)
def test_what_does_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SASRec(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "plain"])
def test_every_encoder_learns_the_next_item(kind: str) -> None:
    data = circle()
    config = SASRec(
        embedding_dim=16, epochs=40, batch_size=30, learning_rate=0.02, max_length=5, dropout=0.0, **KINDS[kind]
    )
    scorer = config.fit_scorer(data, FitContext(seed=3))
    histories = [[(start + step) % ITEMS for step in range(4)] for start in range(ITEMS)]
    asked = Requests(
        pa.nulls(ITEMS), np.full(ITEMS, -1, np.int32), Histories.from_lists(histories), ItemLists.empty(ITEMS)
    )
    best = scorer.score(asked)[:, :ITEMS].argmax(axis=1)
    assert (best == (np.arange(ITEMS) + 4) % ITEMS).mean() > 0.8
