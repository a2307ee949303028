"""Edits of named weights: exact at every strength, on every part, in order, and gone bit for bit afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from duo_unlearn.edits.files import as_lora, read_edit, with_strength, write_changes
from duo_unlearn.edits.interface import edits_off
from duo_unlearn.edits.merge import merge
from duo_unlearn.edits.weights import Change, LowRank, Replacement, WeightEdit, locate
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Model
from duo_unlearn.storage.files import read_tensors, write_tensors

from ..random_adapter import random_adapter
from .mini import REQUEST, mini, output, same, weights

KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
QUERY = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
CONVOLUTION = "unet.conv_out.weight"
TEXT = "text_encoder.encoder.layers.0.self_attn.v_proj.weight"


@pytest.fixture(scope="module")
def model() -> Model:
    return mini()


@pytest.fixture(scope="module")
def base(model: Model) -> torch.Tensor:
    return output(model)


def weight(model: Model, name: str) -> torch.Tensor:
    found = locate(model, name)
    assert found is not None
    return found.detach().clone()


def low_rank(model: Model, *names: str, rank: int = 2, seed: int = 0) -> dict[str, Change]:
    """Random changes of low rank; convolutions as matrices."""
    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, Change] = {}
    for name in names:
        out, *rest = weight(model, name).flatten(1).shape
        changes[name] = LowRank(
            0.3 * torch.randn(out, rank, generator=generator), 0.3 * torch.randn(rank, *rest, generator=generator)
        )
    return changes


def replaced(model: Model, *names: str) -> dict[str, Change]:
    generator = torch.Generator().manual_seed(1)
    before = {name: weight(model, name) for name in names}
    return {name: Replacement(w + 0.2 * torch.randn(w.shape, generator=generator)) for name, w in before.items()}


def saved(folder: Path, changes: Mapping[str, Change], name: str = "mine") -> WeightEdit:
    write_changes(folder / name, changes, {"base": "0" * 16})
    edit = read_edit(folder / name, name)
    assert isinstance(edit, WeightEdit)
    return edit


def test_a_low_rank_change_is_exact_on_every_kind_of_layer(model: Model, tmp_path: Path) -> None:
    changes = low_rank(model, KEY, CONVOLUTION, TEXT)
    edit = saved(tmp_path, changes)
    assert (edit.kind, set(edit.parts)) == ("low-rank", {"unet", "text_encoder"})
    before = weights(model)
    for strength in (0.0, 0.5, 1.0):
        with with_strength(edit, strength).on(model):
            for name, change in changes.items():
                assert isinstance(change, LowRank)
                wanted = before[name] + (strength * (change.up @ change.down)).view(before[name].shape)
                assert torch.equal(weight(model, name), wanted)
    assert same(weights(model), before)


def test_a_replacement_is_taken_bit_for_bit_and_blended_between(model: Model, tmp_path: Path) -> None:
    changes = replaced(model, KEY, TEXT)
    edit, before = saved(tmp_path, changes), weights(model)
    assert edit.kind == "weights"
    for name, change in changes.items():
        assert isinstance(change, Replacement)
        with edit.on(model):
            assert torch.equal(weight(model, name), change.value)
        with with_strength(edit, 0.0).on(model):
            assert torch.equal(weight(model, name), before[name])
        with with_strength(edit, 0.25).on(model):
            torch.testing.assert_close(weight(model, name), 0.75 * before[name] + 0.25 * change.value)
    assert same(weights(model), before)


def test_a_text_encoder_changes_what_prompts_say(model: Model, base: torch.Tensor, tmp_path: Path) -> None:
    edit = saved(tmp_path, low_rank(model, TEXT))
    words = [str(REQUEST.words)]
    before = model.condition(words).text
    with edit.on(model):
        assert not torch.allclose(model.condition(words).text, before, atol=1e-3)
        assert not torch.equal(output(model), base)
        with edits_off(model):
            assert torch.equal(model.condition(words).text, before)
    assert torch.equal(model.condition(words).text, before)


def test_edits_of_one_weight_act_in_order_and_come_off_in_any(model: Model, tmp_path: Path) -> None:
    value = Replacement(torch.zeros_like(weight(model, KEY)))
    first, second = saved(tmp_path, low_rank(model, KEY), "a"), saved(tmp_path, {KEY: value}, "b")
    before, change = weights(model), low_rank(model, KEY)[KEY]
    assert isinstance(change, LowRank)
    with first.on(model), second.on(model):
        assert not weight(model, KEY).any()
        with edits_off(model):
            assert same(weights(model), before)
        assert not weight(model, KEY).any()
    with second.on(model), first.on(model):
        assert torch.equal(weight(model, KEY), change.up @ change.down)
        with edits_off(model):
            assert same(weights(model), before)
        assert torch.equal(weight(model, KEY), change.up @ change.down)
    assert same(weights(model), before)


def test_an_adapter_may_lie_around_the_layer(model: Model, base: torch.Tensor, tmp_path: Path) -> None:
    random_adapter(mini(), tmp_path / "lora", size=0.2)
    adapter, edit = read_edit(tmp_path / "lora", "lora"), saved(tmp_path, low_rank(model, QUERY))
    before = weights(model)
    with edit.on(model), adapter.on(model):
        inner = output(model)
    with adapter.on(model):
        alone = output(model)
        with edit.on(model):
            torch.testing.assert_close(output(model), inner, rtol=1e-4, atol=1e-5)
            with edits_off(model):
                assert torch.equal(output(model), base)
        assert torch.equal(output(model), alone)
    assert not torch.allclose(alone, inner, atol=1e-3)
    assert torch.equal(output(model), base)
    assert same(weights(model), before)


def test_a_low_rank_change_of_the_denoiser_equals_an_adapter(model: Model, tmp_path: Path) -> None:
    changes = low_rank(model, KEY) | low_rank(model, QUERY, rank=3)
    edit = saved(tmp_path, changes)
    with edit.on(model):
        wanted = output(model)
    adapter = as_lora(edit)
    assert (adapter.rank, adapter.kind) == (3, "lora")
    with adapter.on(model):
        torch.testing.assert_close(output(model), wanted, rtol=1e-4, atol=1e-5)
    for other in (low_rank(model, KEY, TEXT), replaced(model, KEY)):
        with pytest.raises(DuoError, match="cannot be written as an adapter"):
            as_lora(saved(tmp_path, other))
    convolution = as_lora(saved(tmp_path, low_rank(model, CONVOLUTION)))
    with pytest.raises(DuoError, match="does not fit the model"), convolution.on(model):
        pass


@pytest.mark.parametrize("kind", ["lora", "low-rank", "weights"])
def test_a_merged_edit_is_in_the_weights_for_good(kind: str, tmp_path: Path) -> None:
    model = mini()
    if kind == "lora":
        random_adapter(mini(), tmp_path / "mine", size=0.2)
    else:
        saved(tmp_path, low_rank(model, KEY, TEXT) if kind == "low-rank" else replaced(model, KEY, TEXT))
    edit = read_edit(tmp_path / "mine", "mine", strength=0.5)
    with edit.on(model):
        wanted = output(model)
    merge(edit, model)
    assert not model.switches
    torch.testing.assert_close(output(model), wanted, rtol=1e-4, atol=1e-5)
    assert not any("lora" in name for name in model.denoiser.state_dict())


def test_what_does_not_fit_is_refused_and_changes_nothing(model: Model, tmp_path: Path) -> None:
    change, before = low_rank(model, KEY)[KEY], weights(model)
    assert isinstance(change, LowRank)
    wrong: list[tuple[Mapping[str, Change], str]] = [
        ({KEY: LowRank(change.up[1:], change.down)}, "the model's is"),
        ({KEY: Replacement(torch.zeros(3, 3))}, "3×3"),
        ({"unet.no.such.weight": change}, "no such weight"),
        ({"no_such_part.weight": change}, "no such weight"),
        ({KEY: change, "text_encoder.nothing": Replacement(torch.zeros(2))}, "no such weight"),
    ]
    for changes, said in wrong:
        with pytest.raises(DuoError, match="does not fit the model") as caught, saved(tmp_path, changes).on(model):
            pass
        assert said in str(caught.value.got)
        assert not model.switches
    assert same(weights(model), before)


def test_files_that_hold_no_whole_change_are_refused(model: Model, tmp_path: Path) -> None:
    change = low_rank(model, KEY)[KEY]
    assert isinstance(change, LowRank)
    path = tmp_path / "weight_changes.safetensors"
    wrong = [
        ({f"{KEY}.up": change.up}, "up for"),
        ({f"{KEY}.up": change.up, f"{KEY}.down": change.down, f"{KEY}.value": change.up.clone()}, "value"),
        ({f"{KEY}.up": change.up[:, 1:], f"{KEY}.down": change.down}, "down"),
        ({f"{KEY}.up": change.up[:, 0], f"{KEY}.down": change.down}, "down"),
    ]
    for tensors, said in wrong:
        write_tensors(path, tensors)
        with pytest.raises(DuoError, match="is not an edit of this package") as caught:
            read_edit(tmp_path)
        assert said in str(caught.value.got)


def test_a_changed_or_broken_file_is_refused(model: Model, tmp_path: Path) -> None:
    edit = saved(tmp_path, low_rank(model, KEY))
    content = bytearray(edit.path.read_bytes())
    content[-1] ^= 0x40
    edit.path.write_bytes(content)
    with pytest.raises(DuoError, match="not the file that was written"):
        read_edit(tmp_path / "mine")
    edit = saved(tmp_path, low_rank(model, KEY))
    tensors, metadata = read_tensors(edit.path)
    next(iter(tensors.values()))[0, 0] = float("inf")
    write_tensors(edit.path, tensors, metadata)
    (tmp_path / "mine" / "provenance.json").unlink()
    with pytest.raises(DuoError, match="not finite"):
        read_edit(tmp_path / "mine")
