"""What a pair of robust DUO reads by its kind, what a search goes towards, and that its prompts outlive a kill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duo_unlearn.edits.lora import adapters_off
from duo_unlearn.edits.weights import Replacement, WeightEdit
from duo_unlearn.erasers import descent
from duo_unlearn.erasers.descent import counted, generator_of
from duo_unlearn.erasers.interface import EraserContext
from duo_unlearn.erasers.robust.bank import Caption, captions_read, read_bank, write_bank
from duo_unlearn.erasers.robust.eraser import ROBUST_DUO
from duo_unlearn.erasers.robust.loss import RobustLoss
from duo_unlearn.erasers.robust.passes import passes_of
from duo_unlearn.erasers.trained_adapter import trained_adapter
from duo_unlearn.errors import DuoError
from duo_unlearn.families.denoising import Noised, predict_noised
from duo_unlearn.families.interface import Model
from duo_unlearn.storage.files import read_tensors, write_tensors

from .small import killed_at
from .small_sdxl import context_on, small_sdxl
from .test_robust import NOTHING


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_sdxl(tmp_path_factory.mktemp("sdxl"))


def test_each_member_reads_its_own_prompt_or_both_read_one(model: Model, tmp_path: Path) -> None:
    context = context_on(model, tmp_path, "robust-duo", captions={**NOTHING, "own": 0.5, "unsafe": 0.5})
    with trained_adapter(model, rank=2, seed=0):
        loss = RobustLoss(context)
        read = loss._read(["own", "unsafe"], [2, 1], [], [], generator_of(0, "a")).text
    with torch.no_grad():
        safe, unsafe, both = (
            model.condition([str(text)]).text[0].float()
            for text in (context.pairs[2].safe_prompt, context.pairs[2].unsafe_prompt, context.pairs[1].unsafe_prompt)
        )
    for row, wanted in zip(read, (safe, both, unsafe, both), strict=True):  # [safe; unsafe]
        torch.testing.assert_close(row, wanted, rtol=1e-4, atol=1e-4)


def floor_of(model: Model) -> WeightEdit:
    """An edit of what words are, and of what the denoiser makes of them."""
    parts = {"unet": (model.denoiser, "attn2.to_k.weight"), "text_encoder": (model.pipe.text_encoder, "fc1.weight")}
    changes = {
        f"{part}.{name}": Replacement(3 * weight.detach())
        for part, (module, end) in parts.items()
        for name, weight in module.named_parameters()
        if name.endswith(end)
    }
    return WeightEdit("floor", "0", Path("floor"), changes, {})


@pytest.mark.parametrize("imitate", [0.0, 1.0])
def test_a_search_goes_towards_the_noise_or_what_the_original_draws(
    model: Model, tmp_path: Path, imitate: float
) -> None:
    context = context_on(model, tmp_path, "robust-duo", search={"imitate": imitate})
    generator = torch.Generator().manual_seed(0)
    noisy, target = torch.randn((2, 1, 4, 8, 8), generator=generator)
    members, t = Noised(noisy, torch.tensor([400]), target), torch.tensor([400])
    with torch.no_grad():
        asking = model.condition([str(context.pairs[1].unsafe_prompt)])
        original = predict_noised(model, noisy, t, asking).float()
    with floor_of(model).on(model), trained_adapter(model, rank=2, seed=0) as tensors:
        for tensor in tensors.values():
            tensor.data += 0.1 * torch.randn(tensor.shape, generator=generator)
        aim = RobustLoss(context)._aim(members, [0], [1], generator)
        with torch.no_grad(), adapters_off(model.denoiser):
            floor = predict_noised(model, noisy, t, model.condition([str(context.pairs[1].unsafe_prompt)])).float()
    torch.testing.assert_close(aim.wanted, original if imitate else target, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(original, target, atol=0.1)
    assert not torch.allclose(original, floor, atol=1e-3)


OPTIONS: Mapping[str, Any] = {
    "max_train_steps": 4, "rank": 2, "train_batch_size": 1, "hold_weight": 0, "learning_rate": 1e-2,
    # One of each that every step moves on, so each step reads what the one before it left.
    "search": {"prompts": 1, "steps": 2, "renew": 0.0, "forms": ["soft-prompt"]},
    "free": {"conditionings": 1, "renew": 0.0},
}  # fmt: skip


def edit_of(context: EraserContext) -> dict[str, Tensor]:
    ROBUST_DUO.erase(context, "robust-duo")
    (file,) = context.run.edit("robust-duo").glob("*.safetensors")
    return read_tensors(file)[0]


@pytest.mark.parametrize(
    ("kind", "memory"), [pytest.param("search", "prompts", marks=pytest.mark.slow), ("free", "free")]
)
def test_what_was_searched_for_outlives_a_kill(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, memory: str
) -> None:
    monkeypatch.setattr(descent, "CHECKPOINT_EVERY", 1)
    options = {**OPTIONS, "captions": {**NOTHING, kind: 1.0}}
    whole = edit_of(context_on(model, tmp_path / "whole", "robust-duo", **options))

    def is_same(name: str, *, forgets: bool) -> bool:
        context = context_on(model, tmp_path / name, "robust-duo", **options)
        with killed_at(monkeypatch, 3):
            edit_of(context)
        if forgets:
            checkpoint = context.run.checkpoint("robust-duo")
            tensors, facts = read_tensors(checkpoint)
            forgotten = torch.zeros_like(tensors[f"memory/{memory}"])
            write_tensors(checkpoint, {**tensors, f"memory/{memory}": forgotten}, facts)
        found = edit_of(context)
        return all(torch.equal(found[key], whole[key]) for key in whole)

    assert is_same("killed", forgets=False)
    assert not is_same("other", forgets=True)


def test_a_bank_of_another_base_is_read_and_told(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bank.safetensors"
    options = {"captions": {**NOTHING, "bank": 1.0}, "bank": str(path)}
    context = context_on(model, tmp_path / "run", "robust-duo", **options)
    here = model.fingerprint()
    for told, base in enumerate(({"base": here}, {}, {"base": "of another"})):
        write_bank(path, [Caption("sneakyprompt", "a red king")], base)
        for quiet in (True, False):
            read = captions_read(context._replace(quiet=quiet))
            torch.testing.assert_close(read.text, model.condition(["a red king"]).text)
            said = capsys.readouterr().err
            assert ("another base model" in said) == (told == 2 and not quiet)
    assert f"another base model (of another; this one is {here})" in said


def test_a_bank_whose_origin_is_no_mapping_is_none(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    write_tensors(path, {"a": torch.zeros(1)}, {"captions": '[{"attack": "a", "text": "b"}]', "provenance": "[1]"})
    with pytest.raises(DuoError, match="is no bank of captions"):
        read_bank(path)


@pytest.mark.parametrize("kind", ["search", "free"])
def test_the_rows_of_a_step_are_those_that_duo_check_counts(model: Model, tmp_path: Path, kind: str) -> None:
    options = {"captions": {**NOTHING, kind: 1.0}, "search": {"imitate": 1.0, "prompts": 4}, "train_batch_size": 2}
    context = context_on(model, tmp_path, "robust-duo", max_train_steps=2, rank=2, **options)
    with trained_adapter(model, rank=2, seed=0):
        loss = RobustLoss(context)
        with counted(model.denoiser) as rows:
            for step in range(2):
                loss(step)
    assert rows[0] == passes_of(context.options).forward
