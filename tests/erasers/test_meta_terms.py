"""Meta-Unlearning: which set each γ weighs, before or after the attack, with which sign; and an attack's rate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duo_unlearn.attacks.fine_tuning import Lesson
from duo_unlearn.erasers import meta_unlearning
from duo_unlearn.erasers.captioned import Captioned
from duo_unlearn.erasers.descent import Descent
from duo_unlearn.erasers.meta_unlearning import META_UNLEARNING, MetaLoss, MetaUnlearningSettings
from duo_unlearn.families.interface import Model, Moments
from duo_unlearn.families.load import load_model

from .small import CPU
from .words_alone import context_of

GAMMAS = {
    "keep_unrelated": 0.1, "keep_related": 0.01, "spoil_unsafe": 0.2, "spoil_related": 0.3, "spoil_unrelated": 0.04,
}  # fmt: skip
EACH = {"keep_unrelated": 20.0, "keep_related": 0.2, "spoil_unsafe": 0.3, "spoil_related": -7.5, "spoil_unrelated": -10}
"""What each γ adds by hand.

At θ = 2 the losses' slopes are −2 (unsafe: ½ (θ − 4)²), 20 (related: 5 θ²) and 200 (unrelated: 50 θ²). A step of the
attack, of 0.5 towards what is unsafe, ends at θ' = 2.5, where they are −1.5, 25 and 250. So 0.1 · 200, 0.01 · 20,
−0.2 · −1.5, −0.3 · 25 and −0.04 · 250.
"""


def test_each_gamma_weighs_its_set_before_or_after_the_attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theta = torch.tensor([2.0], requires_grad=True)
    context = context_of("esd-x", load_model("mini", CPU), tmp_path, {})
    sets = {name: Captioned(Moments(*torch.zeros(2, 1, 4, 1, 1)), [""]) for name in ("unsafe", "related", "unrelated")}

    def loss_of(name: str, _rows: Sequence[int], _generator: torch.Generator, **_: bool) -> Tensor:
        losses = {"unsafe": 0.5 * (theta - 4) ** 2, "related": 5 * theta**2, "unrelated": 50 * theta**2}
        return losses[name].sum()

    def added(**gammas: float) -> float:
        settings = MetaUnlearningSettings.model_validate({"attack_steps": 1, "attack_lr": 0.5, **gammas})
        loss = MetaLoss(context, settings, sets, Descent({"unet.weight": theta}, lambda _: theta.sum(), 1, 1.0))
        monkeypatch.setattr(loss, "loss", loss_of)
        (found,) = loss.added(0)
        return float(found)

    none = dict.fromkeys(GAMMAS, 0.0)
    # AdamW's decay takes 1e-4 off θ'.
    for name, expected in EACH.items():
        assert added(**none | {name: GAMMAS[name]}) == pytest.approx(expected, abs=5e-3)
    assert added(**GAMMAS) == pytest.approx(3.0, abs=1e-2)
    assert theta.item() == 2.0


@pytest.mark.parametrize(("given", "rate"), [({}, 1e-3), ({"attack_lr": 2e-4}, 2e-4), ({"attack_on": "weights"}, 1e-4)])
def test_a_new_adapter_learns_at_ten_times_the_rate_of_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], rate: float
) -> None:
    lessons: list[Lesson] = []

    def seen(_model: Model, _what: object, lesson: Lesson, *_: object) -> AbstractContextManager[None]:
        lessons.append(lesson)
        return nullcontext()

    monkeypatch.setattr(meta_unlearning, "newly_adapted", seen)
    monkeypatch.setattr(meta_unlearning, "relearned", seen)
    theta = torch.tensor([2.0], requires_grad=True)
    context = context_of("esd-x", load_model("mini", CPU), tmp_path, {})
    settings = MetaUnlearningSettings.model_validate({"attack_on": "adapter", **given})
    sets = {"unsafe": Captioned(Moments(*torch.zeros(2, 1, 4, 1, 1)), [""])}
    descent = Descent({"unet.weight": theta}, lambda _: theta.sum(), 1, 1.0)
    with MetaLoss(context, settings, sets, descent).attacked(0):
        assert [lesson.rate for lesson in lessons] == [pytest.approx(rate)]
    # An edit that was made at another rate is told apart.
    assert META_UNLEARNING.facts(settings) == ({} if given else {"rate": "10 × relearning's"})
