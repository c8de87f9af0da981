"""The notebooks run from the first cell to the last, and show what their words say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"
FACTS = {
    "quick-start": "recs['user_id'].nunique(), len(newcomer), same, report.compare(popular)['ndcg@10'][1] > 0",
    "compare-models": "sorted(set(differences) | {best}) == sorted(models), len(reports) == len(models) + 1, "
    "reports[chosen].metrics['ndcg@10'] == max(report.metrics['ndcg@10'] for report in reports.values()), "
    "final.metrics['ndcg@10'] > reports['popularity'].metrics['ndcg@10']",
}
EXPECTED = {"quick-start": "(400, 5, True, True)", "compare-models": "(True, True, True, True)"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FACTS)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    notebook: Any = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    notebook.cells.append(nbformat.v4.new_code_cell(FACTS[name]))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert notebook.cells[-1].outputs[0]["data"]["text/plain"] == EXPECTED[name]


def test_every_notebook_is_run() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.ipynb")} == set(FACTS)
