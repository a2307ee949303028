"""The table of a training's rounds: DSR by attack after each, of the edits that are there, and nothing of one round."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from duo_unlearn.report.rounds import rounds_tables
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.rounds import Round, read_rounds, rounds_file, write_rounds
from duo_unlearn.storage.files import write_json

from .html_page import page_of
from .make_run import attack_estimate

EDITS = ("robust-duo-round-1", "robust-duo")


def write(run: Run, defended: Sequence[dict[str, int]]) -> None:
    """The rounds of robust-duo and their edits. defended: of each round, attack → how many of 16."""
    rounds = []
    for i, known in enumerate(defended):
        edit = EDITS[i + len(EDITS) - len(defended)]
        write_json(run.edit(edit) / "provenance.json", {"sha256": edit})
        dsr = [attack_estimate(attack, "duo", hits, 16) for attack, hits in known.items()]
        rounds.append(Round(i + 1, edit, edit, edit, "key", None, dsr))
    write_rounds(run, "robust-duo", rounds)


def test_the_rounds_stand_side_by_side_by_attack(run: Run) -> None:
    write(run, [{"p4d": 4, "unlearndiffatk": 8}, {"unlearndiffatk": 12, "concept-inversion": 16}])
    page = page_of(run)
    words = page.section("training")
    assert "Attack after round 1 after round 2" in words
    assert [cell.split()[0] for cell in page.rows("unlearndiffatk")[0]] == ["50.0", "75.0"]
    assert page.rows("p4d")[0][1] == page.rows("concept-inversion")[0][0] == "no verdict"
    assert "n = 16" in page.rows("p4d")[0][0]
    assert "prompts that were trained on" in words
    assert "not a measurement of the result" in words
    told = json.loads(run.report_data.read_text())["rounds"]
    assert [(one["edit"], one["rounds"]) for one in told] == [("robust-duo", [1, 2])]
    assert {row["attack"]: row["dsr"][1] and row["dsr"][1]["value"] for row in told[0]["rows"]}["p4d"] is None


def test_one_round_has_no_table(run: Run) -> None:
    write(run, [{"p4d": 4}])
    assert rounds_tables(run) == []
    assert "after round" not in page_of(run).text


@pytest.mark.parametrize("edit", EDITS)
def test_rounds_of_another_training_are_not_told(run: Run, edit: str) -> None:
    write(run, [{"p4d": 4}, {"p4d": 8}])
    write_json(run.edit(edit) / "provenance.json", {"sha256": "another"})
    assert rounds_tables(run) == []


def test_names_are_text(run: Run) -> None:
    write(run, [{"<script>": 4}, {"<script>": 8}])
    page = page_of(run)
    assert "<script" not in page.source
    assert "<script>" in page.text


def test_a_file_that_was_changed_is_set_aside(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write(run, [{"p4d": 4}, {"p4d": 8}])
    path = rounds_file(run, "robust-duo")
    assert [one.number for one in read_rounds(run, "robust-duo")] == [1, 2]
    path.write_text(path.read_text().replace('"number": 2', '"number": 3'))
    assert read_rounds(run, "robust-duo") == []
    assert not path.exists()
    assert "set aside" in capsys.readouterr().err
