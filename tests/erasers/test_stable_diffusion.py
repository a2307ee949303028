"""Every eraser makes an edit that acts on a small Stable Diffusion 1, and on a 2 that predicts velocities.

What each aims at is tested on the mini model, and the two kinds of prediction in tests/families.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from duo_unlearn.edits.files import read_edit
from duo_unlearn.edits.lora import detach
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model

from ..families import small_models
from ..slow import slow_but
from .small import CPU, OPTIONS
from .small_sdxl import context_on

FAMILIES = {"sd1": small_models.sd1, "sd2": small_models.sd2}
FEW = {"max_train_steps": 2, "rank": 2, "train_batch_size": 2, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    return {family: load_model(str(make(folder / family)), CPU) for family, make in FAMILIES.items()}


@pytest.mark.parametrize("family", slow_but(FAMILIES, ("sd2",)))
@pytest.mark.parametrize("name", slow_but(ERASERS.names(), ("uce", "esd-x")))
def test_it_erases(models: dict[str, Model], family: str, name: str, tmp_path: Path) -> None:
    model = models[family]
    detach(model)  # as every stage does before an eraser's turn
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def prediction() -> torch.Tensor:
        return model.predict(noise, torch.tensor([500]), model.condition(["a red knight holding a sword"]))

    before = prediction()
    context = context_on(model, tmp_path / "run", name, **(OPTIONS.get(name, {}) if name != "duo" else FEW))
    assert ERASERS.get(name).erase(context, name) == "done"
    assert torch.equal(prediction(), before)
    edit = read_edit(context.run.edit(name), name)
    assert edit.kind == ERASERS.get(name).makes
    with edit.on(model):
        after = prediction()
    assert torch.isfinite(after).all()
    assert not torch.equal(after, before)
    assert torch.equal(prediction(), before)
