"""Robust DUO's search behind the text encoders, on a small SDXL and on a small FLUX, where no search of tokens fits."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duo_unlearn.erasers.descent import generator_of
from duo_unlearn.erasers.duo.step import draw, noised_members, pair_at
from duo_unlearn.erasers.robust.free import Conditionings
from duo_unlearn.erasers.robust.loss import RobustLoss
from duo_unlearn.erasers.robust.search import Aim
from duo_unlearn.erasers.robust.settings import FreeSettings, RobustSettings
from duo_unlearn.erasers.trained_adapter import trained_adapter
from duo_unlearn.families.free_conditioning import FreeConditioning
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.settings.check import check_family
from duo_unlearn.settings.tree import resolve
from duo_unlearn.storage.forms import deciding

from ..families import small_models
from ..families.small_llms import LLMS
from .small_sdxl import context_on, small_sdxl
from .test_robust import NOTHING, aim_of, shaken

FREE = {**NOTHING, "free": 1.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_sdxl(tmp_path_factory.mktemp("sdxl"))


@contextlib.contextmanager
def begun(model: Model, folder: Path, **options: Any) -> Iterator[tuple[RobustLoss, dict[str, Tensor]]]:
    """A loss on an adapter that is not the identity."""
    context = context_on(model, folder, "robust-duo", **{"rank": 2, "captions": FREE, **options})
    with trained_adapter(model, rank=2, seed=0) as tensors:
        shaken(tensors)
        yield RobustLoss(context), tensors


def kept_by(model: Model, **settings: Any) -> Conditionings:
    return Conditionings(model, FreeSettings.model_validate(settings), {}, generator_of(0, "free"))


def test_a_search_starts_at_a_plain_text_comes_nearer_and_leaves_the_adapter_alone(
    model: Model, tmp_path: Path
) -> None:
    with begun(model, tmp_path) as (_, tensors):
        kept = kept_by(model, conditionings=3, steps=2, spread=0, lr=0.02)
        plain, read = model.condition(["a picture"]), kept.read([0, 2])
        assert read.pooled is not None
        assert plain.pooled is not None
        torch.testing.assert_close(read.text, plain.text.expand(2, -1, -1))
        torch.testing.assert_close(read.pooled, plain.pooled.expand(2, -1))
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        aim, start = aim_of(model, 2), kept.memory["free"].clone()
        for _ in range(3):
            kept.move([0, 2], aim)
        far, near = (kept.distance(offsets[[0, 2]], aim) for offsets in (start, kept.memory["free"]))
        assert (near < far).all()
        assert kept.memory["free"].any(dim=1).tolist() == [True, False, True]
        assert not kept.memory["free"].requires_grad
        assert all(torch.equal(tensor, before[name]) and tensor.grad is None for name, tensor in tensors.items())


def test_a_draw_takes_none_twice_and_some_start_again(model: Model) -> None:
    kept = kept_by(model, conditionings=4, renew=0.0, spread=0.5)
    before = kept.memory["free"].clone()
    assert 0.4 < float(before.abs().max()) <= 0.5
    assert len({tuple(row.tolist()) for row in before}) == 4
    assert sorted(kept.draw(4, generator_of(0, "a"))) == [0, 1, 2, 3]
    assert torch.equal(kept.memory["free"], before)
    kept.settings.renew = 1.0
    chosen = kept.draw(2, generator_of(0, "a"))
    changed = (kept.memory["free"] != before).any(dim=1)
    assert [i for i in range(4) if changed[i]] == sorted(chosen)


def test_a_step_moves_what_it_reads_on_the_pairs_that_it_drew(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begun(model, tmp_path / "a", free={"conditionings": 2, "renew": 0.0}) as (loss, _):
        wordless = [dataclasses.replace(p, unsafe_prompt=None, safe_prompt=None) for p in loss.context.pairs]
        start = loss.memory["free"].clone()
        first = float(loss(0).detach())
        assert not torch.equal(loss.memory["free"], start)
        assert first != pytest.approx(math.log(2), abs=1e-6)
    with begun(model, tmp_path / "b", free={"conditionings": 2, "renew": 0.0, "steps": 0}) as (loss, _):
        assert torch.equal(loss.memory["free"], start)
        assert float(loss(0).detach()) != first
        assert torch.equal(loss.memory["free"], start)
    # Towards the noise, on the unsafe latents of what was drawn.
    aims: list[Aim] = []
    with begun(model, tmp_path / "d", train_batch_size=3) as (loss, _):
        assert loss.behind is not None
        monkeypatch.setattr(loss.behind, "move", lambda _numbers, aim: aims.append(aim))
        chosen = [pair_at(i, len(loss.cache.unsafe.mean), loss.seed) for i in range(3)]
        draws = draw([0, 1, 2], loss.cache.safe.mean.shape[1:], loss.settings, loss.seed)
        members = noised_members(loss.cache, model, chosen, draws)
        loss(0)
    assert all(torch.equal(found, wanted[3:]) for found, wanted in zip(aims[0], members, strict=True))
    # No prompt of a pair is read.
    with begun(model, tmp_path / "c", hold_weight=0) as (loss, _):
        own = float(loss(0).detach())
        assert float(RobustLoss(loss.context._replace(pairs=wordless))(0).detach()) == own


def test_what_was_searched_as_tokens_and_behind_the_encoders_is_not_mixed_up(model: Model, tmp_path: Path) -> None:
    with begun(model, tmp_path, captions={**FREE, "free": 0.5, "search": 0.5}) as (loss, _):
        assert loss.behind is not None
        assert loss.prompts is not None
        read = loss._read(["free", "search", "free"], [0, 1, 2], [1], [2, 0], generator_of(0, "a")).text
        behind, searched = loss.behind.read([2, 0]).text, loss.prompts.read([1]).text
    assert torch.equal(read, torch.stack([behind[0], searched[0], behind[1]]).repeat(2, 1, 1))


def test_padding_stays_padding(tmp_path: Path) -> None:
    z_image = load_model(str(LLMS["z-image"](tmp_path / "model")), torch.device("cpu"), resolution=32)
    base = FreeConditioning(z_image)
    tokens = base.base.text[0].ne(0).any(dim=1)
    assert 0 < int(tokens.sum()) < len(tokens)
    moved = base.at(torch.ones(2, base.size)).text
    assert not moved[:, ~tokens].any()
    rows = base.base.text[0, tokens]
    torch.testing.assert_close(moved[:, tokens], (rows + rows.square().mean().sqrt()).expand(2, -1, -1))


def test_it_needs_no_clip(tmp_path: Path) -> None:
    settings = {"eraser": "robust-duo", "erasers": {"robust-duo": {"captions": dict(FREE)}}}
    check_family(resolve(settings), "flux")
    flux = load_model(str(small_models.flux(tmp_path / "model")), torch.device("cpu"), resolution=32)
    with begun(flux, tmp_path / "run") as (loss, _):
        start = loss.memory["free"].clone()
        assert math.isfinite(float(loss(0).detach()))
        assert not torch.equal(loss.memory["free"], start)


def test_what_was_trained_before_there_was_such_a_search_is_known_again() -> None:
    key = deciding(RobustSettings())
    assert "free is read where" in str(RobustSettings.model_validate({"free": {"lr": 0.2}}).fault())
    assert "free" not in key
    assert "free" not in key["captions"]
    other = RobustSettings.model_validate({"captions": {"search": 0.2, "free": 0.2}, "free": {"lr": 0.2}})
    assert (deciding(other)["captions"]["free"], deciding(other)["free"]["lr"]) == (0.2, 0.2)
