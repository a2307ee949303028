"""Soft-prompt inversion: a free conditioning fits images of the concept, on every family, and repeats itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from duo_unlearn.attacks.interface import Findings, Target, requests_for, why_not
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.attacks.soft_prompt import Budget, Soft
from duo_unlearn.attacks.tensors import conditioning_of
from duo_unlearn.errors import DuoError
from duo_unlearn.families.denoising import Reader
from duo_unlearn.families.free_conditioning import START
from duo_unlearn.families.interface import Moments
from duo_unlearn.families.load import load_model
from duo_unlearn.runs.search_state import NO_STATE, SearchState

from ..families import small_models as small
from ..families.small_llms import LLMS
from ..slow import slow
from .prompt_cut import asked, target

SOFT = ATTACKS.get("soft-prompt")


@pytest.fixture(scope="module")
def whole() -> Target:
    return target(cut=False)


def find(on: Target, budget: Budget, state: SearchState = NO_STATE) -> Findings:
    return SOFT.find(on, asked(2), [3, 4], budget, lambda _share: None, state)


def fixed_error(soft: Soft) -> float:
    """The loss on a fixed batch."""
    with torch.no_grad():
        return float(soft.error(torch.Generator().manual_seed(11), 16))


@pytest.mark.slow
def test_it_starts_from_a_plain_text_and_lowers_its_loss_on_a_fixed_batch(whole: Target) -> None:
    soft = Soft(whole)
    torch.testing.assert_close(soft.conditioning().text, whole.model.condition([START]).text)
    before = fixed_error(soft)
    learned = find(whole, Budget(12, 8, lr=3e-2))
    conditioning = conditioning_of(learned.tensors, "soft")
    scale = soft.free.base.text.square().mean().sqrt()
    soft.moved.data.copy_(((conditioning.text - soft.free.base.text) / scale).flatten())
    assert fixed_error(soft) < before


def test_one_conditioning_stands_for_every_prompt(whole: Target) -> None:
    found = find(whole, Budget(1, 2))
    requests = requests_for(found, [3, 4], [None, None])
    assert [request.seed for request in requests] == [3, 4]
    first, second = (request.conditioning for request in requests)
    assert first is not None
    assert second is not None
    assert torch.equal(first.text, second.text)


class Stopped(SearchState):
    """Dies after it wrote a step."""

    def __init__(self, path: Path, at: int) -> None:
        super().__init__(path, "key", every=0)
        self.at = at

    def offer(self, step: int, tensors: Any) -> None:
        super().offer(step, tensors)
        if step == self.at:
            raise InterruptedError


def test_one_that_was_killed_after_its_last_step_keeps_its_loss(whole: Target, tmp_path: Path) -> None:
    path, budget = tmp_path / "state.safetensors", Budget(2, 2)
    with pytest.raises(InterruptedError):
        find(whole, budget, Stopped(path, budget.steps))
    resumed, straight = find(whole, budget, SearchState(path, "key")), find(whole, budget)
    assert math.isfinite(resumed.findings[0].facts["loss"])
    assert resumed.findings == straight.findings
    assert torch.equal(resumed.tensors["soft.text"], straight.tensors["soft.text"])


def test_it_repeats_itself_and_goes_on_after_a_kill(whole: Target, tmp_path: Path) -> None:
    path, budget = tmp_path / "state.safetensors", Budget(3, 2)
    with pytest.raises(InterruptedError):
        find(whole, budget, Stopped(path, 2))
    resumed, straight = find(whole, budget, SearchState(path, "key")), find(whole, budget)
    assert torch.equal(resumed.tensors["soft.text"], straight.tensors["soft.text"])
    assert resumed.findings == straight.findings


@pytest.mark.parametrize("family", ["sdxl", *slow(["sd3", "flux", *sorted(LLMS)])])
def test_it_runs_on_every_family(whole: Target, family: str, tmp_path: Path) -> None:
    maker = LLMS[family] if family in LLMS else getattr(small, family)
    model = load_model(str(maker(tmp_path / "model")), torch.device("cpu"), resolution=small.RESOLUTION)
    assert why_not(SOFT, model, has_edits=True) is None
    moments = model.encode_images([Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")])
    on = whole._replace(model=model, reader=Reader(model), moments=lambda: moments)
    soft, found = Soft(on), find(on, Budget(8, 4, lr=0.1))
    before, conditioning = fixed_error(soft), conditioning_of(found.tensors, "soft")
    parts = [
        ((new - base) / base[base.ne(0).any(dim=-1)].square().mean().sqrt()).flatten()
        for new, base in zip(conditioning[:2], soft.free.base[:2], strict=True)
        if new is not None and base is not None
    ]
    assert len(parts) == (1 if family in LLMS else 2)  # the others read a pooled vector too
    assert all(part.abs().max() > 0 for part in parts)
    soft.moved.data.copy_(torch.cat(parts))
    assert fixed_error(soft) < before
    images = model.sample(requests_for(found, [3, 4], [None, None]), steps=2, guidance=5.0, batch=2)
    assert all("fault" not in image.info for image in images)


def test_a_loss_that_is_not_finite_is_an_error_not_a_defence(whole: Target) -> None:
    moments = whole.moments()
    broken = whole._replace(moments=lambda: Moments(moments.mean * float("nan"), moments.std))
    with pytest.raises(DuoError, match="step 1 of the soft prompt was not finite"):
        find(broken, Budget(1, 2))
