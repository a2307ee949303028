"""What a page leaves out of a run, as it is of another edit, and files that were changed by hand."""

from __future__ import annotations

import pytest

from duo_unlearn.edits.provenance import seen_digest
from duo_unlearn.report.anew import current_sweeps
from duo_unlearn.report.status import read_status
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import write_json

from .make_run import add_pairs


def test_a_frontier_of_beta_on_other_pairs_than_the_edits_is_left_out(run: Run) -> None:
    saw = [["c", "d"], ["a", "b"]]
    write_json(run.edit("duo") / "provenance.json", {"pairs": saw})
    path = run.sweep / "beta.json"
    write_json(path, {"points": [], "edit": "duo", "pairs": seen_digest(saw[::-1])})
    assert set(current_sweeps(run)) == {"beta"}
    write_json(path, {"points": [], "edit": "duo", "pairs": seen_digest(saw[:1])})
    assert not current_sweeps(run)
    write_json(path, {"points": []})  # an older version's says nothing of it
    assert set(current_sweeps(run)) == {"beta"}


@pytest.mark.parametrize("content", [{"pairs": None}, {"pairs": {"a": 1}}, {"pairs": [], "tries": [{}]}])
def test_a_list_of_pairs_of_another_shape_is_none(run: Run, content: dict[str, object]) -> None:
    add_pairs(run, count=2)
    write_json(run.pairs / "manifest.json", content)
    write_json(run.verdicts / "judge.json", {"verdicts": None})
    stages = {work.name: work for work in read_status(run).stages}
    assert (stages["pairs"].state, stages["pairs"].done) == ("not begun", 0)
