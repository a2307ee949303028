"""Edits that others made: each form gives what its own tool gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from duo_unlearn.edits.files import read_edit
from duo_unlearn.edits.foreign import add_edit
from duo_unlearn.edits.lora import LoraEdit
from duo_unlearn.edits.merge import merge
from duo_unlearn.errors import DuoError
from duo_unlearn.export.kohya import kohya_tensors
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.storage.files import read_tensors, write_tensors

from ..families import small_models
from ..families.small_llms import LLMS
from ..random_adapter import random_adapter
from ..slow import slow
from .mini import CPU, mini, output, same, weights
from .others import changed, trained_by_peft


@pytest.fixture(scope="module")
def model() -> Model:
    return mini()


@pytest.fixture(scope="module")
def base(model: Model) -> torch.Tensor:
    return output(model)


@pytest.mark.slow
def test_an_adapter_that_plain_peft_trained(model: Model, base: torch.Tensor, tmp_path: Path) -> None:
    wanted = trained_by_peft(tmp_path / "theirs")
    edit = add_edit(model, tmp_path / "edits" / "theirs", "theirs", lora=tmp_path / "theirs")
    assert (edit.name, edit.kind) == ("theirs", "lora")
    assert edit.provenance["base"] == model.fingerprint()
    with edit.on(model):
        torch.testing.assert_close(output(model), wanted, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(output(model), base, atol=1e-3)
    plain = mini()
    plain.pipe.load_lora_weights(tmp_path / "edits" / "theirs")
    torch.testing.assert_close(output(plain), wanted, rtol=1e-4, atol=1e-5)


def test_a_merged_folder(model: Model, tmp_path: Path) -> None:
    erased = mini()
    for part in ("unet", "text_encoder"):
        getattr(erased.pipe, part).load_state_dict(changed(erased, part, "attn1.to_q", "v_proj"))
    erased.pipe.save_pretrained(tmp_path / "theirs", safe_serialization=True)
    wanted, before = weights(erased), weights(model)
    edit = add_edit(model, tmp_path / "edits" / "theirs", "theirs", erased=tmp_path / "theirs")
    assert (edit.kind, set(edit.parts)) == ("weights", {"unet", "text_encoder"})
    with edit.on(model):
        assert same(weights(model), wanted)
    assert same(weights(model), before)


@pytest.mark.parametrize("share", ["whole", "some"])
def test_a_state_dict_of_the_unet(share: str, model: Model, tmp_path: Path) -> None:
    state = changed(model, "unet", "attn2.to_k")
    wanted = {f"unet.{name}": value for name, value in state.items()}
    if share == "some":
        state = {f"unet.{name}": value for name, value in state.items() if "attn2" in name}
    write_tensors(tmp_path / "theirs.safetensors", state)
    edit = add_edit(model, tmp_path / "edits" / "theirs", "theirs", unet=tmp_path / "theirs.safetensors")
    assert edit.parts == ("unet",)
    # What is as in the base is no part of the edit.
    assert all(
        "attn2.to_k" in name for name in read_tensors(tmp_path / "edits" / "theirs" / "weight_changes.safetensors")[0]
    )
    with edit.on(model):
        assert same(weights(model, "unet"), wanted)


@pytest.mark.parametrize("prefix", ["", "text_model.", "text_encoder.text_model."])
def test_a_state_dict_of_the_text_encoder(prefix: str, model: Model, tmp_path: Path) -> None:
    state = changed(model, "text_encoder", "v_proj")
    positions = {f"{prefix}embeddings.position_ids": torch.arange(77).view(1, -1)}  # a buffer of older files
    write_tensors(tmp_path / "theirs.safetensors", {f"{prefix}{k}": v for k, v in state.items()} | positions)
    edit = add_edit(model, tmp_path / "edits" / "theirs", "theirs", text_encoder=tmp_path / "theirs.safetensors")
    with edit.on(model):
        assert same(weights(model, "text_encoder"), {f"text_encoder.{k}": v for k, v in state.items()})


def test_a_file_of_kohya_as_our_export_writes_it(model: Model, tmp_path: Path) -> None:
    random_adapter(mini(), tmp_path / "ours", size=0.2, rank=3)
    ours = read_edit(tmp_path / "ours", strength=0.5)
    assert isinstance(ours, LoraEdit)
    write_tensors(tmp_path / "theirs.safetensors", kohya_tensors(ours))
    edit = add_edit(model, tmp_path / "edits" / "theirs", "theirs", lora=tmp_path / "theirs.safetensors")
    with ours.on(model):
        wanted = output(model)
    with edit.on(model):
        torch.testing.assert_close(output(model), wanted, rtol=1e-4, atol=1e-5)


BLOCK = "mid_block.attentions.0.transformer_blocks.0"
LAYERS = {
    f"lora_unet_{BLOCK.replace('.', '_')}_attn2_to_k": (f"unet.{BLOCK}.attn2.to_k", 2, 2.0),
    f"lora_unet_{BLOCK.replace('.', '_')}_attn1_to_out_0": (f"unet.{BLOCK}.attn1.to_out.0", 4, 1.0),
    f"lora_unet_{BLOCK.replace('.', '_')}_ff_net_2": (f"unet.{BLOCK}.ff.net.2", 4, 2.0),
    "lora_te_text_model_encoder_layers_0_self_attn_v_proj": ("text_encoder.encoder.layers.0.self_attn.v_proj", 3, 3.0),
    "lora_te_text_model_encoder_layers_0_mlp_fc1": ("text_encoder.encoder.layers.0.mlp.fc1", 3, 6.0),
}
"""kohya's name of a layer → its own name, a rank and an alpha."""


@pytest.mark.parametrize("kind", ["lora", "low-rank"])
def test_a_file_of_kohya_with_several_ranks_and_alphas(kind: str, model: Model, tmp_path: Path) -> None:
    """ΔW = alpha / rank · up · down; with a text encoder's layers too where it is no adapter."""
    generator, known = torch.Generator().manual_seed(0), weights(model)
    tensors: dict[str, torch.Tensor] = {}
    wanted = dict(known)
    for name, (layer, rank, alpha) in LAYERS.items():
        if kind == "low-rank" or name.startswith("lora_unet"):
            size = known[f"{layer}.weight"].shape
            down, up = (0.3 * torch.randn(n, generator=generator) for n in ((rank, size[1]), (size[0], rank)))
            tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
            wanted[f"{layer}.weight"] = known[f"{layer}.weight"] + alpha / rank * up @ down
    write_tensors(tmp_path / "theirs.safetensors", tensors)
    edit = add_edit(model, tmp_path / "edits" / "x", "x", lora=tmp_path / "theirs.safetensors")
    assert edit.kind == kind
    merged = mini()
    merge(edit, merged)
    torch.testing.assert_close(weights(merged), wanted, rtol=1e-4, atol=1e-5)
    if kind == "lora":  # its ranks are one now, as diffusers reads them
        plain = mini()
        plain.pipe.load_lora_weights(tmp_path / "edits" / "x")
        torch.testing.assert_close(output(plain), output(merged), rtol=1e-4, atol=1e-4)


def test_a_file_in_half_precision_keeps_its_numbers_at_a_small_alpha(model: Model, tmp_path: Path) -> None:
    """alpha 1 at rank 128, as kohya's default is: 1/128 of a small number is none of half precision's normal ones."""
    generator, name = torch.Generator().manual_seed(0), next(iter(LAYERS))
    layer = LAYERS[name][0]
    size = weights(model)[f"{layer}.weight"].shape
    down, up = (3e-4 * torch.randn(n, generator=generator) for n in ((128, size[1]), (size[0], 128)))
    halves = {f"{name}.lora_down.weight": down.half(), f"{name}.lora_up.weight": up.half()}
    write_tensors(tmp_path / "theirs.safetensors", {**halves, f"{name}.alpha": torch.tensor(1.0)})
    edit = add_edit(model, tmp_path / "edits" / "x", "x", lora=tmp_path / "theirs.safetensors")
    assert isinstance(edit, LoraEdit)
    torch.testing.assert_close(edit.scale * edit.layers[layer][1].float(), up.half().float() / 128, rtol=1e-6, atol=0)


def test_a_diffusers_adapter_keeps_its_alpha(model: Model, tmp_path: Path) -> None:
    theirs = mini()
    theirs.pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=6, target_modules=["to_k"], init_lora_weights=False))
    theirs.pipe.unet.save_lora_adapter(tmp_path / "unet")
    wanted = output(theirs)
    theirs.pipe.save_lora_weights(
        tmp_path, unet_lora_layers={k.removeprefix("base_model.model."): v for k, v in _peft_state(theirs).items()},
        unet_lora_adapter_metadata=theirs.pipe.unet.peft_config["default"].to_dict(),
    )  # fmt: skip
    edit = add_edit(model, tmp_path / "edits" / "x", "x", lora=tmp_path / "pytorch_lora_weights.safetensors")
    with edit.on(model):
        torch.testing.assert_close(output(model), wanted, rtol=1e-4, atol=1e-5)


def _peft_state(model: Model) -> dict[str, torch.Tensor]:
    from peft.utils import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model.denoiser))


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux", *slow(sorted(LLMS))])
def test_every_family_reads_a_folder_and_an_adapter(family: str, tmp_path: Path) -> None:
    source = (LLMS[family] if family in LLMS else getattr(small_models, family))(tmp_path / "base")

    def load() -> Model:
        return load_model(str(source), CPU, resolution=small_models.RESOLUTION)

    base, merged = load(), load()
    random_adapter(base, tmp_path / "ours", size=0.2, rank=2)
    ours = read_edit(tmp_path / "ours")
    assert isinstance(ours, LoraEdit)
    write_tensors(tmp_path / "theirs.safetensors", kohya_tensors(ours))
    edit = add_edit(base, tmp_path / "edits" / "lora", "lora", lora=tmp_path / "theirs.safetensors")
    layer, (down, up) = next(iter(ours.layers.items()))
    assert isinstance(edit, LoraEdit)
    torch.testing.assert_close(edit.layers[layer][1] @ edit.layers[layer][0], up @ down)
    parts = (*base.kind.text[:2], base.denoiser_name)
    for part in parts:
        with torch.no_grad():
            next(p for p in getattr(merged.pipe, part).parameters() if p.ndim == 2).add_(0.1)
    merged.pipe.save_pretrained(tmp_path / "merged", safe_serialization=True)
    edit = add_edit(base, tmp_path / "edits" / "folder", "folder", erased=tmp_path / "merged")
    assert set(edit.parts) == set(parts)
    with edit.on(base):
        assert same(weights(base), weights(merged))


def test_the_same_source_again_changes_nothing_and_another_is_refused(model: Model, tmp_path: Path) -> None:
    for name, word in (("a", "attn2.to_k"), ("b", "attn2.to_v")):
        write_tensors(tmp_path / f"{name}.safetensors", changed(model, "unet", word))
    folder = tmp_path / "edits" / "theirs"
    first = add_edit(model, folder, "theirs", unet=tmp_path / "a.safetensors")
    assert add_edit(model, folder, "theirs", unet=tmp_path / "a.safetensors").sha256 == first.sha256
    with pytest.raises(DuoError, match="holds another edit theirs"):
        add_edit(model, folder, "theirs", unet=tmp_path / "b.safetensors")
    # An adapter that lies on the model, switched off, hides no name.
    random_adapter(mini(), tmp_path / "lora", size=0.2)
    with read_edit(tmp_path / "lora").on(model):
        pass
    other = add_edit(model, tmp_path / "edits" / "again", "again", unet=tmp_path / "a.safetensors")
    assert other.sha256 == first.sha256
    assert sorted(path.name for path in (tmp_path / "edits").iterdir()) == ["again", "theirs"]
