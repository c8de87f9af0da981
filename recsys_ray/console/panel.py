"""The end of a run for a person: a panel on a terminal, the same words as lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def lines(found: Mapping[str, Any], config: str) -> list[str]:
    """A summary (``Summary.to_json``) in lines; ``config`` is what the next commands are about."""
    return [line for title, body in _parts(found, config) for line in (title, *(f"  {one}" for one in body))]


def paint(console: Console, found: Mapping[str, Any], config: str) -> None:
    """The summary as a panel."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    texts: list[Text] = []
    for title, body in _parts(found, config):
        texts.append(Text(title, style="bold"))
        texts += [Text(f"  {one}") for one in body]
    how = "published" if found["published"] else "not published"
    console.print(Panel(Group(*texts), title=f"{found['name']}: {found['model']}, {how}", expand=False))


def _parts(found: Mapping[str, Any], config: str) -> list[tuple[str, list[str]]]:
    parts = [("data", _data(found)), ("quality", _quality(found))]
    parts.append(("stages", [_stage(stage) for stage in found["stages"]]))
    for example in found["examples"]:
        had, gets = ", ".join(example["had"]) or "nothing", ", ".join(example["gets"])
        parts.append((f"user {example['user']}", [f"had   {had}", f"gets  {gets}"]))
    parts.append((found["path"], []))
    parts.append(
        ("next", [f"recsys-ray serve {config}", f"recsys-ray report data {config}", f"recsys-ray verify {config}"])
    )
    return [(title, body) for title, body in parts if body or title == found["path"]]


def _data(found: Mapping[str, Any]) -> list[str]:
    width = max((len(f"{count:,}") for _, count in found["funnel"]), default=0)
    rows = [f"{count:>{width},} {what}" for what, count in found["funnel"]]
    return [*rows, f"{found['users']:,} users, {found['items']:,} items"]


def _quality(found: Mapping[str, Any]) -> list[str]:
    rows = []
    if found["value"] is not None:
        interval = found["interval"]
        between = "" if interval is None else f" [{interval[0]:.4f}, {interval[1]:.4f}]"
        rows.append(f"{found['metric']} {found['value']:.4f}{between}")
        for other in found["baselines"]:
            row = f"  {other['name']} {other['value']:.4f}"
            if other["difference"] is not None:
                row += f"; the model {other['difference']:+.4f} [{other['low']:+.4f}, {other['high']:+.4f}]"
            rows.append(row)
    shares = {"of the catalogue is listed": found["coverage"], "of the rows are of the fallback": found["fallback"]}
    return [*rows, *(f"{share:.1%} {what}" for what, share in shares.items() if share is not None)]


def _stage(stage: Mapping[str, Any]) -> str:
    if stage.get("skipped"):
        return f"{stage['stage']:<12} unchanged, skipped"
    memory = "" if not stage.get("memory") else f"{stage['memory'] / 2**30:>8.2f} GiB"
    return f"{stage['stage']:<12}{stage['seconds']:>8.1f} s{memory}"
