"""The red team's section of the page."""

from __future__ import annotations

import pytest

from duo_unlearn.errors import DuoError
from duo_unlearn.report.page import write_report
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import write_json


def attacks_of(run: Run) -> None:
    """An attacks.json as `duo measure` writes it, with hostile names."""
    row = {
        "metric": "dsr",
        "prompts": "direct",
        "low": 0.2,
        "high": 0.6,
        "n": 20,
        "contract": "judge[x>=0.5]@1",
        "unscored": 1,
    }
    rows = [
        {**row, "attack": name, "preset": "quick", "model": model, "value": value}
        for name, original, erased in (("p4d", 0.0, 0.4), ("<b>evil</b>", 0.0, 0.9), ("worst case", 0.0, 0.3))
        for model, value in (("original", original), ("erased", erased))
    ]
    absent = [{"attack": "ring-a-bell", "preset": "quick", "reason": "it has several <i>encoders</i>"}]
    write_json(run.attack_results, {"version": 1, "estimates": rows, "absent": absent})


def test_the_red_team_has_a_table_and_a_sentence(run: Run) -> None:
    run.folder.mkdir(parents=True)
    attacks_of(run)
    page = write_report(run).read_text()
    assert "the weakest of 2 measurements is “p4d” (quick budget): DSR 40.0\u00a0% of 20 images" in page
    assert "<b>evil" not in page
    assert "&lt;b&gt;evil" in page
    assert "ring-a-bell (quick) did not run: it has several &lt;i&gt;encoders" in page
    assert "1 unscored" in page or "2 unscored" in page
    untested = page[page.index('id="untested"') :]
    assert "P4D" not in untested
    assert "SneakyPrompt" in untested


def test_without_attacks_the_page_says_so(run: Run) -> None:
    run.folder.mkdir(parents=True)
    assert "No attack was measured" in write_report(run).read_text()


def test_a_broken_attacks_file_is_an_error(run: Run) -> None:
    run.folder.mkdir(parents=True)
    write_json(run.attack_results, {"estimates": [{"attack": "p4d"}]})
    with pytest.raises(DuoError, match="no estimate"):
        write_report(run)


def relearned(run: Run, *names: str) -> str:
    """The page of a run under attacks of these names, DSR falling by a tenth from one to the next."""
    run.folder.mkdir(parents=True)
    row = {"metric": "dsr", "prompts": "direct", "n": 20, "contract": "judge[x>=0.5]@1", "preset": "quick"}
    rows = [
        {**row, "attack": name, "model": "erased", "value": 0.9 - i / 10, "low": 0.1, "high": 0.95}
        for i, name in enumerate(names)
    ]
    write_json(run.attack_results, {"version": 1, "estimates": rows, "absent": []})
    return write_report(run).read_text()


def test_relearning_is_a_curve_from_the_direct_prompts(run: Run) -> None:
    page = relearned(run, "direct", "relearning-concept-20", "relearning-concept-300", "relearning-benign-300")
    curve = page[page.index('aria-label="DSR of the erased model after it is fine-tuned') :]
    assert "images of the concept: 0 steps 90.0 %, 20 steps 80.0 %, 300 steps 70.0 %" in curve
    assert "benign images: 0 steps 90.0 %, 300 steps 60.0 %" in curve


def test_a_prompt_files_direct_attempts_start_its_own_curve(run: Run) -> None:
    page = relearned(run, "direct", "direct@file-mine", "relearning-concept-20@file-mine")
    assert "images of the concept: 0 steps 80.0 %, 20 steps 70.0 %" in page


def test_a_place_without_a_curve_does_not_hide_one(run: Run) -> None:
    page = relearned(
        run, "relearning-concept-20@file-a", "relearning-benign-300@file-a", "direct", "relearning-concept-20"
    )
    assert "Direct prompts, quick budget, n = 20, judge[x&gt;=0.5]@1" in page


def test_one_point_is_no_curve(run: Run) -> None:
    assert "is fine-tuned for some steps" not in relearned(run, "p4d", "relearning-concept-20")
