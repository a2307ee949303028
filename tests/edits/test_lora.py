"""The adapter: where it sits, that zero is the base exactly, that it comes off again, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duo_unlearn.edits.files import check_base, fused, read_edit, save_adapter, with_strength
from duo_unlearn.edits.interface import edits_off
from duo_unlearn.edits.lora import LoraEdit, adapter_tensors, adapters_off, attach, detach
from duo_unlearn.edits.provenance import WEIGHTS
from duo_unlearn.edits.weights import WeightEdit
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Model
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.storage.files import read_json, read_tensors, write_json, write_tensors

from ..random_adapter import random_adapter
from ..slow import slow
from .mini import REQUEST, mini, output, pixels, same, weights


@pytest.fixture(scope="module")
def model() -> Model:
    """One model for the tests that leave it as it was."""
    return mini()


@pytest.fixture(scope="module")
def base(model: Model) -> torch.Tensor:
    return output(model)


def lora(folder: Path, name: str = "duo", **options: Any) -> LoraEdit:
    """A random adapter in a folder of its own, read back. Options: seed, rank."""
    random_adapter(mini(), folder / name, size=0.2, concept="sword", **options)
    edit = read_edit(folder / name, name)
    assert isinstance(edit, LoraEdit)
    return edit


def test_only_self_attention_is_adapted_and_only_the_adapter_trains() -> None:
    model = mini()
    parameters = attach(model, rank=4, seed=0)
    names = set(adapter_tensors(model.denoiser))
    blocks = sum(name.endswith("attn1") for name, _ in model.denoiser.named_modules())
    assert len(names) == 2 * 4 * blocks
    assert all(".attn1." in name for name in names)
    assert {id(p) for p in model.denoiser.parameters() if p.requires_grad} == {id(p) for p in parameters}
    assert not any("lora_" in name for name, _ in model.pipe.text_encoder.named_parameters())


def test_a_fresh_adapter_is_the_identity_and_detaching_leaves_the_plain_network(base: torch.Tensor) -> None:
    model = mini()
    before, names = weights(model), list(model.denoiser.state_dict())
    attach(model, rank=4, seed=0)
    assert torch.equal(output(model), base)
    detach(model)
    assert list(model.denoiser.state_dict()) == names
    assert same(weights(model), before)


def test_the_reference_of_a_training_is_the_base(base: torch.Tensor) -> None:
    model = mini()
    for parameter in attach(model, rank=4, seed=0):
        parameter.data += 0.2
    flags = [p.requires_grad for p in model.denoiser.parameters()]
    assert not torch.equal(output(model), base)
    with adapters_off(model.denoiser):
        assert torch.equal(output(model), base)
        with adapters_off(model.denoiser):
            pass
        assert torch.equal(output(model), base)  # an inner block leaves the outer one off
    assert not torch.equal(output(model), base)
    assert [p.requires_grad for p in model.denoiser.parameters()] == flags


def test_on_and_off_again_is_the_base_bit_for_bit(model: Model, base: torch.Tensor, tmp_path: Path) -> None:
    edit, before = lora(tmp_path), weights(model)
    assert (edit.name, edit.kind, edit.parts, edit.strength) == ("duo", "lora", ("unet",), 1.0)
    for _ in range(2):
        with edit.on(model):
            changed = output(model)
            assert not torch.equal(changed, base)
            assert not any(p.requires_grad for p in model.denoiser.parameters())
            with edits_off(model):
                assert torch.equal(output(model), base)
            assert torch.equal(output(model), changed)
        assert torch.equal(output(model), base)
        assert not model.switches
    assert same(weights(model), before)


@pytest.mark.parametrize("strength", [*slow([1.0]), 0.5])
def test_a_fused_adapter_is_the_adapter_and_comes_off_bit_for_bit(
    model: Model, base: torch.Tensor, tmp_path: Path, strength: float
) -> None:
    edit, before = with_strength(lora(tmp_path), strength), weights(model)
    with edit.on(model):
        beside, images = output(model), pixels(model)
    with fused(edit).on(model):
        inside = output(model)
        torch.testing.assert_close(inside, beside, rtol=0, atol=1e-5 * float(beside.abs().max()))
        assert not torch.equal(inside, base)
        assert np.abs(pixels(model) - images).max() <= 1  # of 255 levels
        with edits_off(model):
            assert torch.equal(output(model), base)
        assert torch.equal(output(model), inside)
    assert torch.equal(output(model), base)
    assert same(weights(model), before)
    assert (fused(edit).name, fused(edit).sha256) == (edit.name, edit.sha256)


def test_a_fused_convolution_has_the_change_of_its_branch() -> None:
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 3, 3, 3, generator=generator), torch.randn(5, 2, 1, 1, generator=generator)
    weight, x = torch.randn(5, 3, 3, 3, generator=generator), torch.randn(1, 3, 6, 6, generator=generator)
    edit = fused(LoraEdit("x", "", Path("x"), {"unet.conv_in": (down, up)}, 0.5, "unet", {}, {}))
    assert isinstance(edit, WeightEdit)
    change = edit.changes["unet.conv_in.weight"]
    branch = torch.conv2d(torch.conv2d(x, down), up)
    expected = torch.conv2d(x, weight) + 0.8 * 0.5 * branch
    torch.testing.assert_close(torch.conv2d(x, change.applied(weight, 0.8)), expected, rtol=1e-4, atol=1e-4)


def test_an_error_inside_takes_the_edit_off_too(model: Model, base: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError), lora(tmp_path).on(model):
        raise ArithmeticError
    assert torch.equal(output(model), base)


def test_strength_multiplies_the_change(model: Model, base: torch.Tensor, tmp_path: Path) -> None:
    edit = lora(tmp_path)
    with with_strength(edit, 0.0).on(model):
        assert torch.equal(output(model), base)
    results = []
    for strength in (0.5, 1.0):
        with with_strength(edit, strength).on(model):
            results.append(output(model) - base)
    assert results[1].norm() > 1.2 * results[0].norm()
    layer, (down, up) = next(iter(edit.layers.items()))
    with with_strength(edit, 0.5).on(model):
        module: Any = model.denoiser.get_submodule(layer.removeprefix("unet."))
        inputs = torch.randn(2, down.shape[1])
        torch.testing.assert_close(module(inputs) - module.base_layer(inputs), 0.5 * inputs @ down.T @ up.T)


def test_two_adapters_act_together_and_come_off_one_by_one(model: Model, base: torch.Tensor, tmp_path: Path) -> None:
    first, second = lora(tmp_path, "a", seed=1), lora(tmp_path, "b", seed=2)
    with first.on(model):
        alone = output(model)
        with second.on(model):
            assert [switch.name for switch in model.switches] == ["a", "b"]
            both = output(model)
        assert torch.equal(output(model), alone)
    with second.on(model), first.on(model):
        torch.testing.assert_close(output(model), both, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both, alone, atol=1e-3)
    assert torch.equal(output(model), base)


@pytest.mark.slow
def test_a_model_that_lay_under_an_edit_is_loaded_by_plain_diffusers_with_its_alpha(tmp_path: Path) -> None:
    edited = mini()
    edit = lora(tmp_path)
    with edit.on(edited):
        wanted = pixels(edited)
    script = f"""
import sys
sys.modules["duo_unlearn"] = None  # importing it would raise
import numpy as np, torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({str(weights_folder())!r}, dtype=torch.float32, safety_checker=None)
pipe.load_lora_weights({str(tmp_path / "duo")!r})
config = next(iter(pipe.unet.peft_config.values()))
assert (config.r, config.lora_alpha) == (4, 4), config
pipe.set_progress_bar_config(disable=True)
image = pipe({str(REQUEST.words)!r}, generator=torch.Generator().manual_seed(7), num_inference_steps=2,
             guidance_scale=4.0, height=64, width=64).images[0]
np.save({str(tmp_path / "plain.npy")!r}, np.asarray(image).astype(int))
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert np.abs(np.load(tmp_path / "plain.npy") - wanted).max() <= 1


def test_the_file_carries_where_it_comes_from_and_its_hash(model: Model, tmp_path: Path) -> None:
    edit = lora(tmp_path)
    metadata = read_tensors(edit.path)[1]
    assert model.fingerprint() in metadata["duo_provenance"]
    assert '"unet.lora_alpha": 4' in metadata["lora_adapter_metadata"]
    assert read_json(tmp_path / "duo" / "provenance.json")["sha256"] == edit.sha256
    assert edit.provenance["concept"] == "sword"
    # The file alone is the same edit: it says the same of itself.
    (tmp_path / "alone").mkdir()
    moved = edit.path.rename(tmp_path / "alone" / "mine.safetensors")
    again = read_edit(moved)
    assert (again.sha256, again.provenance["concept"]) == (edit.sha256, "sword")


def test_what_a_training_attached_is_what_is_saved(tmp_path: Path) -> None:
    model = mini()
    for parameter in attach(model, rank=3, seed=0):
        parameter.data += 0.1
    trained = output(model)
    save_adapter(model, tmp_path, {"base": model.fingerprint()})
    detach(model)
    with read_edit(tmp_path).on(model):
        torch.testing.assert_close(output(model), trained, rtol=1e-4, atol=1e-5)


def test_an_adapter_for_another_base_is_refused(model: Model, tmp_path: Path) -> None:
    edit = lora(tmp_path)
    check_base(edit, model)
    known = read_json(tmp_path / "duo" / "provenance.json")
    write_json(tmp_path / "duo" / "provenance.json", known | {"base": "0123456789abcdef"})
    with pytest.raises(DuoError, match="another base model"):
        check_base(read_edit(tmp_path / "duo"), model)


def test_one_flipped_byte_is_refused(tmp_path: Path) -> None:
    """The high byte of a weight: the number stays finite or becomes NaN, and the images would be noise or black."""
    path = lora(tmp_path).path
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(DuoError, match="not the file that was written"):
        read_edit(tmp_path / "duo")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = lora(tmp_path).path
    tensors, metadata = read_tensors(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    write_tensors(path, tensors, metadata)
    (tmp_path / "duo" / "provenance.json").unlink()
    with pytest.raises(DuoError, match="not finite"):
        read_edit(tmp_path / "duo")


def test_layers_that_the_model_does_not_have_are_refused(model: Model, base: torch.Tensor, tmp_path: Path) -> None:
    edit = lora(tmp_path)
    down, up = next(iter(edit.layers.values()))
    wrong = [
        ({"unet.no_such_layer": (down, up)}, "no layer unet.no_such_layer"),
        ({next(iter(edit.layers)): (down[:, 1:], up)}, "the model's is"),
        ({next(iter(edit.layers)): (down[1:], up)}, "of rank 3 and 4"),
    ]
    for layers, said in wrong:
        broken = LoraEdit("x", said, edit.path, layers, 1.0, "unet", {}, {})
        with pytest.raises(DuoError, match="does not fit the model") as caught, broken.on(model):
            pass
        assert said in str(caught.value.got)
    with (
        pytest.raises(DuoError, match="does not fit"),
        LoraEdit("x", "", edit.path, {}, 1.0, "transformer", {}, {}).on(model),
    ):
        pass
    assert torch.equal(output(model), base)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"lora_adapter_metadata": "[]"},
        {"lora_adapter_metadata": '{"unet.r": 0, "unet.lora_alpha": 4}'},
        {"lora_adapter_metadata": "{"},
    ],
)
def test_a_file_of_another_form_is_a_clear_error(metadata: dict[str, str], tmp_path: Path) -> None:
    path = lora(tmp_path).path
    write_tensors(path, read_tensors(path)[0], metadata)
    (tmp_path / "duo" / "provenance.json").unlink()
    with pytest.raises(DuoError, match="is not an edit of this package"):
        read_edit(path)


def test_a_broken_or_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    lora(tmp_path)
    (tmp_path / "duo" / "provenance.json").unlink()
    (tmp_path / "duo" / WEIGHTS).write_bytes(b"not a tensor")
    with pytest.raises(DuoError, match="cannot read"):
        read_edit(tmp_path / "duo")
    with pytest.raises(DuoError, match="no edit in"):
        read_edit(tmp_path / "nowhere")
