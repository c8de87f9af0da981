"""The report on item vectors as one HTML file that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_ray.base.types import BoolArray, ItemContent, LongArray
from recsys_ray.content.config import ReportSettings
from recsys_ray.content.report.embeddings import Analysis, analyse, embedding_facts, sample
from recsys_ray.content.report.figures import KEYS, LINES, REST, draw_distributions, draw_map
from recsys_ray.content.report.item_labels import ItemLabels
from recsys_ray.content.report.projection import project
from recsys_ray.pages import check_libraries, plain, render

TEMPLATE = "embeddings.html.jinja"
WHAT = "recsys-ray report embeddings"


@dataclass(frozen=True, slots=True)
class LegendEntry:
    sign: str
    colour: str
    label: str
    items: int


@dataclass(frozen=True, slots=True)
class ItemMap:
    """The map and what its caption and legend say."""

    svg: str
    items: int
    method: str
    legend: list[LegendEntry]


def embedding_report(
    items: pa.Table,
    content: ItemContent,
    has_text_I: BoolArray,
    has_image_I: BoolArray,
    counts_I: LongArray,
    settings: ReportSettings,
    facts: Mapping[str, Any],
) -> tuple[dict[str, Any], str]:
    """The numbers of ``embedding_facts``, and the page.

    Args:
        items: the catalogue in vocabulary order (I rows), as the vectors.
        has_text_I: items with a text vector. has_image_I: items with an image vector.
        counts_I: interactions, which say what is well known.
        facts: how the vectors were made, shown as a table; nested values become text.

    Raises:
        ConfigError: a library of the extra ``report`` is missing.
        DataError: fewer than two items have a vector.
    """
    check_libraries(WHAT, "sklearn")
    analysis = analyse(items, content, has_text_I, has_image_I, counts_I, settings)
    page = render(
        "recsys_ray.content.report",
        TEMPLATE,
        WHAT,
        analysis=analysis,
        settings=settings,
        facts={name.replace("_", " "): plain(value) for name, value in facts.items()},
        map=_map(ItemLabels.of(items), content, settings),
        cosines=_cosines(analysis),
        lines=LINES,
    )
    return embedding_facts(analysis), page


def _map(labels: ItemLabels, content: ItemContent, settings: ReportSettings) -> ItemMap:
    present_P = np.flatnonzero(content.present_I)
    rng = np.random.default_rng([settings.seed, 4])
    rows_R = present_P[sample(rng, len(present_P), settings.projected)]
    projection = project(content.vectors_ID[rows_R], settings.projection, settings.seed)
    first_R = labels.first_I[rows_R]
    counts_G = np.bincount(first_R[first_R >= 0], minlength=len(labels.genre_names))
    listed = [int(genre) for genre in np.argsort(-counts_G, kind="stable")[: len(KEYS)] if counts_G[genre]]
    group_of_G = np.full(len(counts_G) + 1, -1, np.int32)  # one more, for items without a genre
    group_of_G[listed] = np.arange(len(listed))
    legend = [
        LegendEntry(key.sign, key.colour, labels.genre_names[genre], int(counts_G[genre]))
        for key, genre in zip(KEYS, listed, strict=False)
    ]
    rest = len(rows_R) - sum(entry.items for entry in legend)
    if rest:
        legend.append(LegendEntry(REST.sign, REST.colour, "other genres, or none", rest))
    svg = draw_map(projection.points_R2, group_of_G[first_R])
    return ItemMap(svg, len(rows_R), projection.method, legend)


def _cosines(analysis: Analysis) -> str:
    return draw_distributions(analysis.bin_edges, [found.shares for found in analysis.distributions.values()])
