"""A broken file of a run folder is a clear error, and no page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duo_unlearn.errors import DuoError
from duo_unlearn.report.page import write_report
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import write_json, write_text

from .make_run import add_results


def test_a_broken_file_is_a_clear_error(tmp_path: Path) -> None:
    run = Run(tmp_path)
    write_text(run.results, '{"estimates": [')
    with pytest.raises(DuoError, match="not valid JSON") as error:
        write_report(run)
    assert "duo judge" in str(error.value)
    add_results(run)
    edited = json.loads(run.results.read_text())
    edited["estimates"][0]["value"] = 1.0
    write_json(run.results, edited)
    with pytest.raises(DuoError, match="cannot be trusted"):
        write_report(run)
    assert not run.report.exists()
    run.results.unlink()
    run.metrics("duo").mkdir(parents=True)
    with pytest.raises(DuoError, match="cannot read"):
        write_report(run)


def test_a_broken_manifest_is_a_clear_error(tmp_path: Path) -> None:
    run = Run(tmp_path)
    write_json(run.pairs / "manifest.json", {"pairs": [{"name": "0000"}]})
    with pytest.raises(DuoError, match="no pair"):
        write_report(run)
