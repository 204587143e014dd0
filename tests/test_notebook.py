"""The notebook of the docs runs, and shows candidates as bars. `--renew-golden` writes what it shows into it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"


def test_the_notebook_runs(pytestconfig: pytest.Config) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [
        output["data"]["text/html"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", {})
    ]
    assert len(shown) == 2
    assert all("<table>" in html and "width:100px" in html for html in shown)
    if pytestconfig.getoption("--renew-golden"):
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # the times of this run
            if cell.cell_type == "code":  # what libraries say names folders of this machine
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        nbformat.write(notebook, NOTEBOOK)  # type: ignore[no-untyped-call]
