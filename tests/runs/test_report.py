"""The page about a published run: what it says is what the files say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_ray.base.manifest import write_manifest
from recsys_ray.base.memory import MemoryWatch
from recsys_ray.base.storage import Location
from recsys_ray.evaluation import EvaluationSettings
from recsys_ray.runs.compare import METRICS, evaluation_facts
from recsys_ray.runs.evaluate import evaluate_run
from recsys_ray.runs.publish import bundle_of, latest_run
from recsys_ray.runs.published import RECORD, read_run, write_run
from recsys_ray.runs.report.examples import examples
from recsys_ray.runs.report.facts import STAGES, collect
from recsys_ray.runs.report.page import PAGE, write_page
from tests.browser import LOOKS, browser
from tests.serving_worlds import prepared_world, publish_run, published_rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Location, list[Location]]:
    """Two runs, popularity and then item-CF, each with its evaluation, as ``recsys-ray run`` leaves them."""
    folder = tmp_path_factory.mktemp("world")
    output, prepared = Location.of(folder), prepared_world(folder, posters=True, split={"kind": "leave_last_out"})
    settings = EvaluationSettings(k=[5, 10], bootstrap=50)
    found = []
    for model, tag in (("popularity", "a"), ("item_cf", "b")):
        run = publish_run(folder, prepared, model, tag)
        record = read_run(run)
        bundle = bundle_of(output, record.model)
        report = evaluate_run(prepared.location, bundle, run, settings)
        facts = evaluation_facts(prepared.location, bundle, run, settings, True)
        name = f"evaluation/{tag * 4}"
        baselines = {} if not found else {"popularity": report.to_json()}
        write_manifest(output / name / METRICS, facts | {"model": report.to_json(), "runs": [], "baselines": baselines})
        made_with = [f"prepared/{prepared.location.name}", name]
        (run / RECORD).remove()
        write_run(replace(record, evaluation=report.metrics, made_with=made_with), run)
        found.append(run)
    write_manifest(
        found[-1] / STAGES, {"stages": [{"stage": "train", "seconds": 1.5, "skipped": False, "peak_mib": 321}]}
    )
    return output, found


def test_the_facts_are_those_of_the_files(world: tuple[Location, list[Location]]) -> None:
    output, [old, new] = world
    assert latest_run(output / "recommendations") == new
    facts, bundle = collect(output, new)
    assert [one.run.run_id for one in facts.measured] == [new.name, old.name] and facts.k == 10
    ids = bundle.item_ids.to_pylist()
    lists = published_rows(new)
    counts = dict.fromkeys(ids, 0)
    for rows in lists.values():
        for row in rows:
            counts[row["item_id"]] += 1
    assert facts.exposures_I.tolist() == [counts[item] for item in ids]
    assert [sum(shares) for shares in facts.by_tenth()] == pytest.approx([1.0, 1.0])
    assert facts.drift == [] and "that of the run before" in facts.drift_note
    assert {one.metric for one in facts.comparisons} == {"ndcg@10", "recall@10", "hit_rate@10"}
    everyone = next(one for one in facts.comparisons if one.metric == "ndcg@10" and one.segment == "all")
    assert everyone.mine == pytest.approx(facts.measured[0].value("ndcg@10"))
    assert everyone.theirs == pytest.approx(facts.measured[1].value("ndcg@10"))
    read, *others = [int(line.split()[0].replace(",", "")) for line in facts.funnel]
    assert read == sum(others) > 0


def test_the_oldest_run_has_nothing_before_it(world: tuple[Location, list[Location]]) -> None:
    output, [old, _] = world
    facts, _ = collect(output, old)
    assert len(facts.measured) == 1 and "No run was published before" in facts.comparison_note
    assert facts.drift is None and facts.stages == []


def test_the_page_asks_for_nothing_and_readers_of_the_directory_leave_it_out(
    world: tuple[Location, list[Location]],
) -> None:
    import pyarrow.dataset as ds

    output, [_, new] = world
    before = ds.dataset(str(new), format="parquet").to_table().num_rows
    file = write_page(output, new, None)
    assert file == new / PAGE and ds.dataset(str(new), format="parquet").to_table().num_rows == before
    page = file.read_bytes().decode()
    assert (
        "<script" not in page and not re.search(r'(src|href)="(?!data:|#)', page) and not re.search(r"url\((?!#)", page)
    )
    for words in (
        new.name,
        "ndcg@10",
        "Drift",
        "Segments",
        "Coverage and popularity",
        "Gate",
        "321",
        "data:image/jpeg",
    ):
        assert words in page


def test_a_run_whose_data_and_evaluation_are_gone_still_has_a_page(tmp_path: Path) -> None:
    run = publish_run(tmp_path, prepared_world(tmp_path))
    facts, _ = collect(Location.of(tmp_path), run)
    assert "not there any more" in facts.drift_note and facts.k == 10
    page = write_page(Location.of(tmp_path), run, None).read_bytes().decode()
    assert "was published without an evaluation" in page or "No run was published before" in page


def test_examples_are_the_published_lists_beside_the_histories(world: tuple[Location, list[Location]]) -> None:
    from recsys_ray.content.config import ImageSettings

    output, [_, new] = world
    facts, bundle = collect(output, new)
    titles = dict(zip(bundle.item_ids.to_pylist(), bundle.items.column("title").to_pylist(), strict=True))
    shown = examples(new, bundle, ImageSettings())
    lists = published_rows(new)
    assert len(shown) == 3 and sorted(one.history for one in shown) == [one.history for one in shown]
    for one in shown:
        rows = lists[one.user_id][: len(one.gets)]
        assert [tile.title for tile in one.gets] == [titles[row["item_id"]] for row in rows]
        assert all(tile.poster and tile.poster.startswith("data:image/jpeg") for tile in (*one.had, *one.gets))
    assert facts.users == len(lists)


def test_peak_memory_sees_what_was_held_and_let_go() -> None:
    with MemoryWatch() as memory:
        start = memory.take()
        held = np.ones(64 << 20, np.uint8)
        high = memory.take()
        del held
        low = memory.take()
    assert high - start > 48 << 20 and high - low > 32 << 20


@pytest.mark.browser
def test_the_page_is_accessible_and_fits_the_screen(world: tuple[Location, list[Location]], tmp_path: Any) -> None:
    output, [_, new] = world
    file = write_page(output, new, None)
    with browser(tmp_path / "profile") as page:
        for size, scheme in LOOKS:
            page.look(size, scheme)
            page.open(f"file://{file}")
            page.screenshot(f"report-{size[0]}-{scheme}")
            assert page.fits() and page.violations() == [] and page.errors == []
            assert [url for url in page.requested if not url.startswith(("file:", "data:", "about:"))] == []
