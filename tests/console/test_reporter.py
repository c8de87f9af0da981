"""What a command shows: lines with time and run in a log, one bar on a terminal, JSON for programs."""

from __future__ import annotations

import io
import json
import pickle
import re
from typing import Any

import pytest

from recsys_ray.base.progress import Step, Ticker
from recsys_ray.console import Reporter, panel
from recsys_ray.console.command import reported


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def reporter(terminal: bool = False, **options: Any) -> tuple[Reporter, io.StringIO, io.StringIO]:
    said, found = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
    return Reporter(said=said, found=found, **options), said, found


def test_a_log_has_lines_with_time_and_run_and_the_result_is_one_line_of_json() -> None:
    say, said, found = reporter()
    say("prepare: done in 1 s")
    say("a table\nof two lines")
    say.show("for people")
    say.result({"path": "x"})
    *lines, table = said.getvalue().splitlines()
    assert table == "for people" and len(lines) == 3
    assert all(re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ {say.run} .+", line) for line in lines)
    assert json.loads(found.getvalue()) == {"path": "x"} and found.getvalue().count("\n") == 1


def test_a_terminal_gets_text_alone_and_json_when_asked() -> None:
    say, _, found = reporter(terminal=True)
    say.show("for people")
    say.result({"path": "x"})
    assert found.getvalue() == "for people\n"
    say, said, found = reporter(terminal=True, as_json=True)
    say.show("for people")
    say.result({"path": "x"})
    assert json.loads(found.getvalue()) == {"path": "x"} and "for people" in said.getvalue()


def test_steps_are_one_bar_that_goes_with_its_stage() -> None:
    say, said, _ = reporter(terminal=True)
    say(Step("als: epoch", 3, 16))
    assert say._bar is not None and len(say._bar.task_ids) == 1
    say(Step("ease: inverse, row", 1, 5))
    assert [task.description for task in say._bar.tasks] == ["ease: inverse, row"]
    say("train: done in 2 s -> somewhere")
    assert say._bar is None and "train: done in 2 s -> somewhere\n" in said.getvalue()


def test_a_log_keeps_few_steps_and_verbose_all() -> None:
    say, said, _ = reporter()
    for epoch in range(1, 17):
        say(Step("als: epoch", epoch, 16))
    assert said.getvalue() == ""
    say, said, _ = reporter(verbose=True)
    for epoch in range(1, 17):
        say(Step("als: epoch", epoch, 16))
    assert said.getvalue().count("als: epoch") == 16


def test_quiet_says_errors_alone() -> None:
    say, said, found = reporter(quiet=True)
    say("prepare: done")
    say.show("table")
    say.error("wrong\nthere")
    say.result({})
    assert said.getvalue() == "error: wrong there\n" and found.getvalue() == "{}\n"


def test_a_log_of_json_has_a_line_of_json_for_each_message() -> None:
    say, said, _ = reporter(log_format="json", verbose=True)
    say("prepare: done")
    say(Step("als: epoch", 3, 16))
    say.error("wrong")
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["prepare: done", "als: epoch 3/16", "wrong"]
    assert lines[1]["done"] == 3 and lines[1]["total"] == 16 and lines[2]["level"] == "error"
    assert {line["run"] for line in lines} == {say.run}


def test_no_secret_is_said() -> None:
    for options in ({}, {"log_format": "json"}):
        say, said, found = reporter(**options)
        say("redis://me:secret@host is there")
        say.show("redis://me:secret@host is there")
        say.error("redis://me:secret@host is wrong")
        say.result({"url": "redis://me:secret@host"})
        assert "secret" not in said.getvalue() + found.getvalue()


def test_a_step_travels() -> None:
    step = pickle.loads(pickle.dumps(Step("svd: epoch", 2, 9, ", training RMSE 0.8")))
    assert (step, step.what, step.done, step.total) == ("svd: epoch 2/9, training RMSE 0.8", "svd: epoch", 2, 9)
    assert Step("ease: Gram matrix") == "ease: Gram matrix" and Step("recommend", 1, 3) == "recommend: 1/3"


def test_work_that_is_done_at_once_or_has_no_label_says_nothing() -> None:
    said: list[str] = []
    for label, total in (("recommend", 1), (None, 100)):
        ticker = Ticker(said.append, label, total)
        for _ in range(total):
            ticker.step()
    assert said == []


def test_the_last_step_takes_the_bar_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_ray.base.progress.LOOK_SECONDS", 0.0)
    say, _, _ = reporter(terminal=True)
    ticker = Ticker(say, "recommend", 3)
    ticker.step()
    assert say._bar is not None
    ticker.step()
    ticker.step()
    assert say._bar is None


def test_an_exit_status_of_a_result_is_the_commands() -> None:
    say, _, found = reporter()
    assert reported(say, lambda: {"exit_status": 3}) == 3 and json.loads(found.getvalue()) == {"exit_status": 3}


SUMMARY: dict[str, Any] = {
    "name": "shop", "model": "ease", "path": "/out/recommendations/1", "published": True,
    "funnel": [("read", 1000), ("left out: repeat a pair (filters.duplicates)", 7)], "users": 30, "items": 20,
    "metric": "ndcg@20", "value": 0.25, "interval": [0.2, 0.3], "coverage": 0.5, "fallback": 0.0,
    "baselines": [{"name": "popularity", "value": 0.1, "difference": 0.15, "low": 0.1, "high": 0.2}],
    "stages": [{"stage": "train", "seconds": 2.0, "skipped": False, "memory": 2**30}],
    "examples": [{"user": "u1", "had": ["Tent"], "gets": ["[red]Mat[/red]"]}],
}  # fmt: skip


def test_the_panel_says_what_the_lines_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    say, _, found = reporter(terminal=True)
    lines = panel.lines(SUMMARY, "shop.yaml")
    say.show("\n".join(lines), lambda console: panel.paint(console, SUMMARY, "shop.yaml"))
    for line in lines:
        assert line.strip() in found.getvalue()
    assert "shop: ease, published" in found.getvalue()
    text = "\n".join(lines)
    for words in (
        "ndcg@20 0.2500 [0.2000, 0.3000]", "popularity 0.1000; the model +0.1500 [+0.1000, +0.2000]", "1.00 GiB",
        "had   Tent", "gets  [red]Mat[/red]", "recsys-ray serve shop.yaml", "50.0% of the catalogue",
    ):  # fmt: skip
        assert words in text
