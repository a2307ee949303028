"""Sketches of changes: linear, the same from an edit and from the models, and another one of another change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from duo_unlearn.edits.files import read_edit, write_changes
from duo_unlearn.edits.interface import Edit
from duo_unlearn.edits.merge import merge
from duo_unlearn.edits.sketch import PROBES, _project, sketch_of, sketch_of_model, why_another
from duo_unlearn.edits.weights import Change, LowRank, Replacement
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model

from ..random_adapter import random_adapter
from ..slow import slow

CPU = torch.device("cpu")
LAYER = "unet.conv_in.weight"


@pytest.fixture(params=["float32", *slow(["float16", "bfloat16"])])
def model(request: pytest.FixtureRequest) -> Model:
    """In half precision too: there a change is rounded when it is put into the weights."""
    found = load_model("mini", CPU)
    for part in (found.pipe.unet, found.pipe.vae, found.pipe.text_encoder):
        part.to(getattr(torch, request.param))
    return found


def eps_of(model: Model) -> float:
    return float(torch.finfo(next(model.denoiser.parameters()).dtype).eps)


def edits(model: Model, folder: Path) -> list[Edit]:
    """An adapter, and on top of it a full change of a convolution and one of low rank of a text encoder."""
    random_adapter(model, folder / "lora", size=0.05)
    weight = dict(model.denoiser.named_parameters())["conv_in.weight"]
    text = "text_encoder.encoder.layers.0.self_attn.v_proj.weight"
    size = dict(model.pipe.text_encoder.named_parameters())[text.partition(".")[2]].shape
    generator = torch.Generator().manual_seed(0)
    changes: dict[str, Change] = {
        LAYER: Replacement(weight.detach() + 0.05),
        text: LowRank(torch.randn(size[0], 2, generator=generator), torch.randn(2, size[1], generator=generator)),
    }
    write_changes(folder / "full", changes, {"base": model.fingerprint()})
    return [read_edit(folder / "lora", "lora", strength=0.7), read_edit(folder / "full", "full", strength=0.5)]


def test_the_sketch_of_edits_is_that_of_the_merged_model_less_the_bases(model: Model, tmp_path: Path) -> None:
    chosen, eps = edits(model, tmp_path), eps_of(model)
    wanted, before = sketch_of(chosen, model), sketch_of_model(model)
    assert len(wanted[LAYER]) == PROBES
    for edit in chosen:
        merge(edit, model)
    after = sketch_of_model(model)
    assert why_another(wanted, before, after, eps) is None
    assert "is off by" in str(why_another({**wanted, LAYER: [0.0] * PROBES}, before, after, eps))
    less = {name: value for name, value in wanted.items() if name != LAYER}
    assert "the edit does not change it" in str(why_another(less, before, after, eps))
    assert "the base has no weight" in str(why_another({**wanted, "unet.x": [0.0] * PROBES}, before, after, eps))
    lacking = after._replace(weights={name: value for name, value in after.weights.items() if name != LAYER})
    assert "1 weights that the other lacks" in str(why_another(wanted, before, lacking, eps))


def test_an_adapter_that_acts_is_in_the_sketch_and_one_that_does_not_is_not(model: Model, tmp_path: Path) -> None:
    adapter = edits(model, tmp_path)[0]
    before = sketch_of_model(model)
    with adapter.on(model):
        assert why_another(sketch_of([adapter], model), before, sketch_of_model(model), eps_of(model)) is None
    assert why_another({}, before, sketch_of_model(model), eps_of(model)) is None


def test_the_square_of_a_sketch_is_about_the_changes_size() -> None:
    """E s² = ‖ΔW‖²; over many weights the mean is near it."""
    generator = torch.Generator().manual_seed(0)
    changes = {f"unet.{i}.weight": torch.randn(8, 12, generator=generator) for i in range(200)}
    squares = torch.stack([_project(name, value) ** 2 for name, value in changes.items()])
    assert float(squares.mean()) == pytest.approx(96, rel=0.15)
