"""Composing and scaling: exact sums of adapters, and what cannot be added up or scaled."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from duo_unlearn.edits.compose import compose, write_scaled
from duo_unlearn.edits.files import as_lora, read_edit, write_changes
from duo_unlearn.edits.lora import LoraEdit
from duo_unlearn.edits.provenance import edit_hash
from duo_unlearn.edits.weights import LowRank, Replacement
from duo_unlearn.errors import DuoError
from duo_unlearn.storage.files import read_json, read_tensors

from ..random_adapter import random_adapter
from .mini import mini, output, weights

KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def lora(folder: Path, *, rank: int, seed: int, concept: str = "sword") -> LoraEdit:
    random_adapter(mini(), folder, size=0.2, rank=rank, seed=seed, concept=concept, model="mini")
    edit = read_edit(folder, folder.name)
    assert isinstance(edit, LoraEdit)
    return edit


def low_rank(folder: Path, *names: str) -> LowRank:
    """Save random changes of some weights of the mini model; gives that of the first."""
    torch.manual_seed(0)
    shapes = {name: weight.shape for name, weight in weights(mini()).items() if name in names}
    changes = {name: LowRank(torch.randn(rows, 2), torch.randn(2, columns)) for name, (rows, columns) in shapes.items()}
    write_changes(folder, changes, {"model": "mini"})
    return changes[names[0]]


def test_the_sum_is_exact(tmp_path: Path) -> None:
    first = dataclasses.replace(lora(tmp_path / "a", rank=3, seed=1), scale=2.0)
    second = lora(tmp_path / "b", rank=5, seed=2, concept="balloon")
    compose([first, second], [1.5, -0.5], tmp_path / "both")
    both = read_edit(tmp_path / "both")
    assert isinstance(both, LoraEdit)
    assert (both.config["r"], both.scale, both.rank) == (8, 1.0, 8)
    for name, (down, up) in both.layers.items():
        (a_down, a_up), (b_down, b_up) = first.layers[name], second.layers[name]
        wanted = 1.5 * 2.0 * a_up @ a_down - 0.5 * b_up @ b_down
        torch.testing.assert_close(up @ down, wanted, rtol=1e-4, atol=1e-6)
    assert both.provenance["concept"] == "sword + balloon"
    assert [part["sha256"] for part in both.provenance["parts"]] == [first.sha256, second.sha256]
    assert both.provenance["sha256"] == edit_hash(tmp_path / "both")


def test_the_sum_acts_as_its_parts_do_together(tmp_path: Path) -> None:
    first, second, model = lora(tmp_path / "a", rank=2, seed=1), lora(tmp_path / "b", rank=3, seed=2), mini()
    compose([first, second], [1.0, 0.5], tmp_path / "both")
    with first.on(model), dataclasses.replace(second, strength=0.5).on(model):
        wanted = output(model)
    with read_edit(tmp_path / "both").on(model):
        torch.testing.assert_close(output(model), wanted, rtol=1e-4, atol=1e-5)


def test_a_layer_that_one_leaves_alone_counts_as_zero(tmp_path: Path) -> None:
    first, second = lora(tmp_path / "a", rank=2, seed=1), lora(tmp_path / "b", rank=2, seed=2)
    name = min(first.layers)
    alone = dataclasses.replace(first, layers={name: first.layers[name]})
    compose([alone, second], [1.0, 0.0], tmp_path / "both")
    both = read_edit(tmp_path / "both")
    assert isinstance(both, LoraEdit)
    torch.testing.assert_close(
        both.layers[name][1] @ both.layers[name][0], alone.layers[name][1] @ alone.layers[name][0]
    )
    other = max(both.layers)
    assert not (both.layers[other][1] @ both.layers[other][0]).any()


def test_a_low_rank_change_of_the_denoiser_is_added_to_an_adapter(tmp_path: Path) -> None:
    first, change = lora(tmp_path / "a", rank=2, seed=1), low_rank(tmp_path / "b", KEY)
    second = dataclasses.replace(as_lora(read_edit(tmp_path / "b")), provenance=first.provenance)
    compose([first, second], [1.0, 2.0], tmp_path / "both")
    both = read_edit(tmp_path / "both")
    assert isinstance(both, LoraEdit)
    down, up = both.layers[KEY.removesuffix(".weight")]
    torch.testing.assert_close(up @ down, 2 * change.up @ change.down)


def test_adapters_of_several_bases_cannot_be_added(tmp_path: Path) -> None:
    first = lora(tmp_path / "a", rank=2, seed=1)
    other = dataclasses.replace(first, provenance={"base": "0123456789abcdef"})
    with pytest.raises(DuoError, match="different base models"):
        compose([first, other], [1.0, 1.0], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_a_scaled_adapter_has_its_change_multiplied(tmp_path: Path) -> None:
    edit = lora(tmp_path / "a", rank=2, seed=1)
    write_scaled(edit, 1.5, tmp_path / "more", {"scaled": 1.5})
    write_scaled(edit, 1.0, tmp_path / "same")
    before = read_tensors(edit.path)[0]
    more = read_tensors(tmp_path / "more" / edit.path.name)[0]
    assert all(torch.equal(more[k], v * (1.5 if "lora_B" in k else 1)) for k, v in before.items())
    same = read_tensors(tmp_path / "same" / edit.path.name)[0]
    assert all(torch.equal(same[name], value) for name, value in before.items())
    provenance = read_json(tmp_path / "more" / "provenance.json")
    assert (provenance["scaled"], provenance["concept"]) == (1.5, "sword")


def test_a_low_rank_change_is_scaled_on_every_part_and_a_full_one_is_not(tmp_path: Path) -> None:
    text = "text_encoder.encoder.layers.0.self_attn.v_proj.weight"
    change, model = low_rank(tmp_path / "a", KEY, text), mini()
    write_scaled(read_edit(tmp_path / "a"), 0.5, tmp_path / "half")
    with read_edit(tmp_path / "a", strength=0.5).on(model):
        wanted = output(model)
    with read_edit(tmp_path / "half").on(model):
        torch.testing.assert_close(output(model), wanted, rtol=1e-4, atol=1e-5)
    write_changes(tmp_path / "full", {KEY: Replacement(change.up @ change.down)}, {})
    with pytest.raises(DuoError, match="cannot be written at another strength") as caught:
        write_scaled(read_edit(tmp_path / "full"), 0.5, tmp_path / "other")
    assert "full change of weights of unet" in str(caught.value.got)
    assert not (tmp_path / "other").exists()
