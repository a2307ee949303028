"""UCE's closed form, by its worked numbers; which rows it edits; and that it erases on the mini model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import duo_unlearn as duo
from duo_unlearn.edits.files import read_edit
from duo_unlearn.edits.weights import WeightEdit
from duo_unlearn.erasers.closed_form import low_rank, sums_of
from duo_unlearn.erasers.text_rows import TextRows, concept_rows
from duo_unlearn.erasers.uce import UceSettings, solve
from duo_unlearn.errors import DuoError

from ..drawn_pairs import draw_pairs

E1, E2, BOTH = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0]])
NONE = torch.zeros(0, 2)


def edited(matrix: Tensor, erase: Tensor, guide: Tensor, keep: Tensor = NONE, **options: Any) -> Tensor:
    keep = keep if len(keep) else torch.zeros(0, matrix.shape[1])
    moved = solve(sums_of(TextRows(erase, guide, keep)), {}, UceSettings(**options))
    return low_rank({"one": matrix}, moved)["one"].applied(matrix, 1.0)


@pytest.mark.parametrize(
    ("weight", "expected"),
    # By hand: W* = (λI + g cᵀ)(λI + c cᵀ)⁻¹ with c = e₁, g = e₂.
    [
        (1.0, [[0.5, 0], [0.5, 1]]),
        (0.5, [[1 / 3, 0], [2 / 3, 1]]),
        (0.1, [[0.0909, 0], [0.9091, 1]]),
    ],
)
def test_one_edit_by_hand(weight: float, expected: list[list[float]]) -> None:
    torch.testing.assert_close(edited(torch.eye(2), E1, E2, weight=weight), torch.tensor(expected), rtol=0, atol=1e-4)


def test_keeping_is_a_pull_and_no_guarantee() -> None:
    changed = edited(torch.eye(2), E1, E2, BOTH, weight=1.0)
    torch.testing.assert_close(changed, torch.tensor([[0.6, 0.2], [0.4, 0.8]]))
    torch.testing.assert_close(changed @ BOTH[0], torch.tensor([0.8, 1.2]))


def test_a_guide_that_is_the_concept_changes_nothing_exactly() -> None:
    weight = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(edited(weight, E1, E1, BOTH), weight)


def test_one_edit_is_rank_one_and_leaves_its_share() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, c, g = (torch.randn(*shape, generator=generator) for shape in ((4, 6), (1, 6), (1, 6)))
    change = edited(weight, c, g, weight=0.5) - weight
    norm = float(c @ c.T)
    torch.testing.assert_close(change, (weight @ (g - c).T) @ c / (0.5 + norm), rtol=1e-4, atol=1e-5)
    assert int(torch.linalg.matrix_rank(change)) == 1


def test_edits_commute_and_many_rows_give_the_same_as_few_at_a_time() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, rows, guides = (torch.randn(*shape, generator=generator) for shape in ((3, 4), (9, 4), (9, 4)))
    order = torch.randperm(9, generator=generator)
    first, other = edited(weight, rows, guides), edited(weight, rows[order], guides[order])
    torch.testing.assert_close(first, other)
    # A row that comes five times weighs five times.
    few = edited(weight, rows[:2], guides[:2], erase_scale=5.0)
    many = edited(weight, rows[:2].repeat(5, 1), guides[:2].repeat(5, 1))
    torch.testing.assert_close(few, many, rtol=1e-4, atol=1e-5)


def test_the_concept_ends_where_prompt_and_guide_differ_last() -> None:
    # start a knight holding a SWORD in snow end, against: start a knight with EMPTY HANDS in snow end
    assert concept_rows([0, 1, 2, 3, 1, 9, 5, 6, 7], [0, 1, 2, 4, 8, 10, 5, 6, 7]) == (5, 5)
    assert concept_rows([0, 1, 9, 5, 7], [0, 1, 8, 10, 5, 7]) == (2, 3)
    assert concept_rows([0, 1, 7], [0, 1, 7]) == (0, 0)


@pytest.mark.parametrize(("rows", "wordings"), [("last", "direct"), ("all", "all"), ("differing", "direct")])
def test_every_row_rule_edits_cross_attention_alone(run_folder: Path, rows: str, wordings: str) -> None:
    options = {"rows": rows, "wordings": wordings}
    run = duo.open_run(run_folder, settings={"eraser": "uce", "erasers": {"uce": options}}, quiet=True)
    edit = read_edit(duo.train(run), "uce")
    assert isinstance(edit, WeightEdit)
    assert edit.kind == "low-rank"
    assert all(".attn2.to_k." in name or ".attn2.to_v." in name for name in edit.changes)
    assert (edit.provenance["steps"], edit.provenance["passes"]) == (0, 0)
    assert (edit.provenance["prompts"] > len(run.pairs)) == (wordings == "all")


@pytest.mark.slow
def test_uce_erases_the_sword_and_is_measured_beside_the_original(run_folder: Path) -> None:
    given = {"eraser": "uce", "erasers": {"uce": {"rows": "all"}}, "evaluate.steps": 8}
    run = duo.open_run(run_folder, settings=given, quiet=True)
    duo.train(run)
    results = duo.evaluate(run)
    dsr = {e.system: e.value for e in results.estimates if (e.metric, e.scenario, e.attack) == ("dsr", "direct", None)}
    assert dsr["uce"] > dsr["original"] + 0.5
    assert duo.report(run.run.folder).exists()


def test_pairs_without_prompts_are_refused(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "mine", 2)
    run = duo.open_run(tmp_path / "run", settings={"eraser": "uce", "pairs.folder": str(tmp_path / "mine")}, quiet=True)
    duo.make_pairs(run)
    with pytest.raises(DuoError, match="uce would read prompts"):
        duo.train(run)
