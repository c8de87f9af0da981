"""The command: ``recsys-ray STAGE CONFIG [key=value ...]``.

Progress goes to standard error, tables and samples to standard output, and the last line of standard output is one
JSON object with the results and paths. Exit status 0 when done, 1 for an error of one line, 130 when interrupted,
143 when terminated.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from recsys_ray import __version__
from recsys_ray.base.errors import RecsysError
from recsys_ray.base.process import Terminated, sigterm_raises, what_failed, writes_any_character
from recsys_ray.base.secrets import mask, masked
from recsys_ray.base.storage_errors import foreign_storage_error
from recsys_ray.commands import COMMANDS, add_config, command, open_pipeline

STAGES = {
    "run": "prepare, embed, train, evaluate, recommend and publish; unchanged stages are skipped",
    "prepare": "raw interactions and catalogue to prepared tables",
    "features": "what is known of users, items and interactions, as Parquet tables for other programs",
    "embed": "texts and posters of the catalogue to item vectors; what did not change is not encoded again",
    "train": "fit the model that is evaluated (without a split: the one that is published)",
    "evaluate": "metrics of the written top-N against held-out interactions",
    "recommend": "write, check and publish the top-N of every user",
    "serve": "answer online, over HTTP, from what is published, until interrupted",
    "verify": "is the published run whole, and does the service at --url answer with it",
    "report": "one HTML page about the data of a run, its item vectors, or the published run itself",
    "rollback": "point LATEST back to the run published before (runs.to=RUN_ID for another)",
}
REPORTS = ("data", "embeddings", "run")
WRITING = ("run", "prepare", "features", "embed", "train", "evaluate", "recommend")
"""Stages that one configuration does not do twice at once."""
WITHOUT_INPUT = ("serve", "verify", "rollback", "report_run")
"""Stages of what is published, whatever has become of its input since."""
ASSIGNMENT = re.compile(r"--[A-Za-z_][\w.]*=")
"""An override that was written as an option."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("recsys-ray", description="Distributed batch recommendation on Ray.")
    parser.add_argument("--version", action="version", version=__version__)
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, text in STAGES.items():
        stage = stages.add_parser(name, help=text, description=text)
        if name == "report":
            stage.add_argument("subject", choices=REPORTS, help="what the page is about")
        if name == "verify":
            stage.add_argument("--url", help="address of a running service, e.g. http://127.0.0.1:8000")
        add_config(stage)
    for name in COMMANDS:
        text = command(name).HELP
        command(name).add_arguments(stages.add_parser(name, help=text, description=text))
    parsed, more = parser.parse_known_args(arguments)  # argparse takes no override behind an option
    more = [word.lstrip("-") if ASSIGNMENT.match(word) else word for word in more]
    if strange := [word for word in more if word.startswith("-") or "overrides" not in parsed]:
        parser.error(f"unrecognized arguments: {mask(' '.join(strange))}; settings are given as recommend.n=20")
    if more:
        parsed.overrides = [*parsed.overrides, *more]
    if parsed.stage in COMMANDS:
        return _reported(lambda: command(parsed.stage).run(parsed, _progress))
    name = f"report_{parsed.subject}" if parsed.stage == "report" else parsed.stage
    options = {"url": parsed.url} if name == "verify" else {}
    return run_stage(name, parsed.config, parsed.overrides, **options)


def job(stage: str, arguments: Sequence[str] | None = None) -> int:
    """The same stage for ``python jobs/<stage>.py --config CONFIG [key=value ...]``."""
    parser = argparse.ArgumentParser(f"jobs/{stage}.py", description=STAGES[stage])
    parser.add_argument("--config", required=True, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a key, e.g. recommend.n=20")
    parsed = parser.parse_args(arguments)
    return run_stage(stage, parsed.config, parsed.overrides)


def run_stage(stage: str, config_path: str, overrides: Sequence[str], **options: Any) -> int:
    """One stage from a configuration file to its JSON line; the exit status."""

    def run() -> dict[str, Any]:
        result = _run(stage, config_path, overrides, options)
        _preview(stage, result)
        return result

    return _reported(run)


def _reported(run: Callable[[], dict[str, Any]]) -> int:
    """The exit status of what was run, its result printed as one JSON line, or its error as one of text."""
    writes_any_character()
    try:
        with sigterm_raises():
            result = run()
        print(json.dumps(masked(result), sort_keys=True), flush=True)
    except RecsysError as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("out of memory; set training.memory_limit_gib, a smaller model, or a machine with more memory")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return _fail("nobody reads standard output any more")
    except OSError as error:
        return _fail(what_failed(error))
    except Exception as error:  # what a storage says while a file of it is read
        if (told := foreign_storage_error(error)) is None:
            raise
        return _fail(str(told))
    except KeyboardInterrupt as error:
        ended, status = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
        print(f"{ended}; the same command resumes where it stopped", file=sys.stderr)
        return status
    return int(result.get("exit_status", 0))


def _run(
    stage: str, config_path: str, overrides: Sequence[str] | Mapping[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """What the stage found or did."""
    with ExitStack() as held:
        opening = open_pipeline(config_path, overrides, _progress, reads_input=stage not in WITHOUT_INPUT)
        pipeline = held.enter_context(opening)
        if stage in WRITING:
            held.enter_context(pipeline.only_once())
        result: dict[str, Any] = getattr(pipeline, stage)(**options)
    return result


def _preview(stage: str, result: dict[str, Any]) -> None:
    """Some of what a run wrote, for a person to look at."""
    from recsys_ray.base.storage import Location
    from recsys_ray.runs.preview import preview

    written = result if stage == "recommend" else result.get("recommend") if stage == "run" else None
    if written:
        print(f"\n{written['path']}\n{preview(Location(written['path']), Location(written['bundle']))}\n")


def run(config: str | os.PathLike[str], **overrides: Any) -> dict[str, Any]:
    """Run a configuration from end to end, as ``recsys-ray run`` does: on a Ray that is there, or one of its own.

    Args:
        config: path of the YAML file. overrides: values by key, ``**{"recommend.n": 20}``.

    Returns:
        What each stage found or did, by stage; ``recsys_ray.load(output)`` opens what was published.

    Raises:
        RecsysError: what the command would say in one line. Nothing is published then.
    """
    return _run("run", os.fspath(config), overrides, {})


def _progress(message: str) -> None:
    print(mask(message), file=sys.stderr, flush=True)


def _fail(message: str) -> int:
    print(f"error: {mask(' '.join(message.split()))}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
