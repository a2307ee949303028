"""Guards that act by guidance's negative branch: where a pipeline has none they do nothing, and a run says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from duo_unlearn.arena.group_work import GroupWork
from duo_unlearn.arena.plans import Plan, attacked_scenarios
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.families.denoising import why_no_branches
from duo_unlearn.families.load import load_model
from duo_unlearn.guards.registry import GUARDS

from ..arena.small_run import make_run, reopen
from ..families import small_llms as llms
from ..families import small_models as small
from .small import context_of, sample
from .test_guards import OPTIONS

NEED = [name for name in GUARDS.names() if GUARDS.get(name).needs_negative]


@pytest.mark.parametrize("name", NEED)
def test_without_a_negative_branch_it_changes_no_bit(name: str, tmp_path: Path) -> None:
    model = load_model("mini", torch.device("cpu"))
    hooks = GUARDS.get(name).build(OPTIONS.get(name, {}), context_of(model, tmp_path))
    assert torch.equal(sample(model, hooks, guidance=1.0, steps=2), sample(model, None, guidance=1.0, steps=2))
    assert not torch.equal(sample(model, hooks, steps=2), sample(model, None, steps=2))


@pytest.mark.parametrize("distilled", [True, False])
def test_a_distilled_model_has_no_negative_branch(distilled: bool, tmp_path: Path) -> None:
    folder = llms.klein(tmp_path / "klein", distilled=distilled)
    model = load_model(str(folder), torch.device("cpu"), resolution=small.RESOLUTION)
    assert ("is distilled" in str(why_no_branches(model, 4.0))) is distilled
    assert why_no_branches(model, 1.0) is not None


def test_a_run_gives_an_idle_guard_no_number_and_says_why(tmp_path: Path) -> None:
    folder = make_run(tmp_path).run.folder
    for guidance, system, idle in (
        (1.0, "duo+negative-prompt", "negative-prompt does nothing without a negative branch: guidance 1"),
        (1.0, "duo+output-filter+sld", "sld does nothing without a negative branch: guidance 1"),
        (1.0, "duo+output-filter", "None"),
        (5.0, "duo+negative-prompt", "None"),
    ):
        run = reopen(folder, evaluate__guidance=guidance)
        chosen, (scenario, *_) = ATTACKS.get("ring-a-bell"), attacked_scenarios(run, 1)
        plan = Plan(run.system(system), scenario, chosen, "quick", chosen.budgets["quick"], "unaware")
        assert str(GroupWork(run, plan).why_not()).startswith(idle)
