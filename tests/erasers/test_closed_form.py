"""What closed forms share: the factors of a change, and the edit of a family with two text encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from duo_unlearn.edits.files import read_edit
from duo_unlearn.edits.weights import WeightEdit
from duo_unlearn.erasers.closed_form import Scales, change, low_rank, sums_of
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.erasers.text_rows import TextRows
from duo_unlearn.families.registry import FAMILIES

from .small_sdxl import context_on, small_sdxl


@pytest.mark.parametrize("rank", [1, 3])
def test_a_change_is_kept_in_as_few_factors_as_it_has(rank: int) -> None:
    generator = torch.Generator().manual_seed(3)
    erase, guide = (torch.randn(rank, 5, generator=generator) for _ in range(2))
    moved = change(sums_of(TextRows(erase, guide, torch.zeros(0, 5))), Scales(0.5, 1.0, 0.0))
    weight = torch.randn(4, 5, generator=generator)
    factors = low_rank({"one": weight}, moved)["one"]
    assert (factors.up.shape, factors.down.shape) == ((4, rank), (rank, 5))
    torch.testing.assert_close(factors.up @ factors.down, (weight.double() @ moved).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["uce", "rece"])
def test_sdxl_is_edited_where_it_reads_both_encoders(tmp_path: Path, name: str) -> None:
    model = small_sdxl(tmp_path)
    context = context_on(model, tmp_path / "run", name, rows="differing")
    assert ERASERS.get(name).erase(context, name) == "done"
    edit = read_edit(context.run.edit(name), name)
    assert isinstance(edit, WeightEdit)
    read = {layer for layer, _ in model.denoiser.named_modules() if layer.endswith(("attn2.to_k", "attn2.to_v"))}
    assert (edit.kind, set(edit.changes)) == ("low-rank", {f"unet.{layer}.weight" for layer in read})
    assert (edit.provenance["steps"], edit.provenance["passes"], edit.provenance["prompts"]) == (
        0,
        0,
        len(context.pairs),
    )

    def values() -> list[torch.Tensor]:
        layer = model.denoiser.get_submodule(min(read))
        return [
            layer(model.condition([text]).text[0, 6:]) for pair in context.pairs for text in (pair.unsafe_prompt or "",)
        ]

    before = values()
    with edit.on(model):
        assert all(not torch.allclose(now, old, rtol=1e-3) for now, old in zip(values(), before, strict=True))
    assert all(torch.equal(now, old) for now, old in zip(values(), before, strict=True))


@pytest.mark.parametrize("name", ["uce", "rece"])
def test_families_without_cross_attention_cannot_have_it(name: str) -> None:
    told = {family for family in FAMILIES.names() if ERASERS.get(name).why_not(FAMILIES.get(family)) is None}
    assert told == {"mini", "sd1", "sd2", "sdxl"}
