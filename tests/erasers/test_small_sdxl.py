"""Erasers that have no case of their own on a small SDXL: ESD-u, Diffusion-DPO and DCPO make their edit there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from duo_unlearn.edits.files import read_edit
from duo_unlearn.edits.lora import detach
from duo_unlearn.edits.weights import Replacement, WeightEdit
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.families.interface import Model

from ..slow import slow_but
from .small_sdxl import context_on, small_sdxl

FEW = {"max_train_steps": 1, "rank": 2, "train_batch_size": 2, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_sdxl(tmp_path_factory.mktemp("sdxl"))


def prediction(model: Model) -> torch.Tensor:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return model.predict(noise, torch.tensor([500]), model.condition(["a red knight holding a sword"]))


def test_esd_u_changes_all_but_cross_attention(model: Model, tmp_path: Path) -> None:
    context = context_on(model, tmp_path / "run", "esd-u", steps=1, batch=1, latents="pairs", lr=1e-3)
    assert ERASERS.get("esd-u").erase(context, "esd-u") == "done"
    edit = read_edit(context.run.edit("esd-u"), "esd-u")
    assert isinstance(edit, WeightEdit)
    assert all(isinstance(change, Replacement) and name.startswith("unet.") for name, change in edit.changes.items())
    assert any(".attn1." in name for name in edit.changes)
    assert not any(".attn2." in name for name in edit.changes)
    # Student, and the frozen model under the concept and under no prompt.
    assert edit.provenance["passes"] == 3
    before = prediction(model)
    with edit.on(model):
        assert not torch.equal(prediction(model), before)
    assert torch.equal(prediction(model), before)


@pytest.mark.parametrize("name", slow_but(["diffusion-dpo", "dcpo"], ("dcpo",)))
def test_preference_losses_train_an_adapter(model: Model, tmp_path: Path, name: str) -> None:
    detach(model)  # as every stage does before an eraser's turn
    context = context_on(model, tmp_path / "run", name, **FEW)
    before = prediction(model)
    assert ERASERS.get(name).erase(context, name) == "done"
    edit = read_edit(context.run.edit(name), name)
    assert edit.kind == "lora"
    # Both members of two pairs, through policy and reference, and no prior.
    assert edit.provenance["passes"] == 8
    assert torch.equal(prediction(model), before)
    with edit.on(model):
        assert not torch.equal(prediction(model), before)
