"""Robust DUO on a small SDXL: what its pairs read, the search in a step, and the term that holds."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duo_unlearn.concepts.store import load_concept
from duo_unlearn.erasers.descent import generator_of
from duo_unlearn.erasers.duo.settings import TrainSettings
from duo_unlearn.erasers.robust.bank import Caption, bank_of, read_bank, read_captions, write_bank
from duo_unlearn.erasers.robust.loss import RobustLoss
from duo_unlearn.erasers.robust.recipe import robust_settings
from duo_unlearn.erasers.robust.search import Aim, Prompts
from duo_unlearn.erasers.robust.settings import Mixture, RobustSettings, SearchSettings
from duo_unlearn.erasers.robust.texts import kind_of
from duo_unlearn.erasers.trained_adapter import trained_adapter
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Conditioning, Model, Tokens
from duo_unlearn.families.load import load_model
from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.families.tokens import PLACEHOLDER, sequence, vocabulary, word_ids
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.check import check_family
from duo_unlearn.settings.tree import resolve
from duo_unlearn.storage.files import write_tensors

from ..families import small_models
from ..slow import slow_but
from .small_sdxl import context_on, small_sdxl

NOTHING = {"unsafe": 0.0, "own": 0.0, "empty": 0.0, "random": 0.0, "bank": 0.0, "search": 0.0, "free": 0.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_sdxl(tmp_path_factory.mktemp("sdxl"))


@contextlib.contextmanager
def begun(model: Model, folder: Path, options: Mapping[str, Any]) -> Iterator[tuple[RobustLoss, dict[str, Tensor]]]:
    context = context_on(model, folder, "robust-duo", **{"rank": 2, **options})
    with trained_adapter(model, rank=2, seed=0) as tensors:
        yield RobustLoss(context), tensors


def shaken(tensors: Mapping[str, Tensor]) -> None:
    """An adapter that is not the identity."""
    generator = torch.Generator().manual_seed(1)
    for tensor in tensors.values():
        tensor.data += 0.1 * torch.randn(tensor.shape, generator=generator)


def small_bank(model: Model, path: Path) -> Path:
    """Token ids, a text with a free vector, a text, and what stands behind the encoders."""
    vector = torch.randn(vocabulary(model).shape[1], generator=torch.Generator().manual_seed(0))
    captions = [
        Caption("p4d", "a b", ids=torch.tensor(sequence(model, [5, 6, 7]))),
        Caption("concept-inversion", f"a picture of {PLACEHOLDER}", vector=vector),
        Caption("sneakyprompt", "a red king"),
        Caption("soft-prompt", "", behind=model.condition(["a blue king"])),
    ]
    write_bank(path, captions, {"run": "sword"})
    return path


def test_a_bank_is_read_through_the_encoders(model: Model, tmp_path: Path) -> None:
    captions, provenance = read_bank(small_bank(model, tmp_path / "bank.safetensors"))
    assert provenance == {"run": "sword"}
    assert [caption.attack for caption in captions] == ["p4d", "concept-inversion", "sneakyprompt", "soft-prompt"]
    found = read_captions(model, captions)
    torch.testing.assert_close(found.rows([2, 3]).text, model.condition(["a red king", "a blue king"]).text)
    assert found.pooled is not None
    ids = model.condition(Tokens(torch.tensor([sequence(model, [5, 6, 7])])))
    torch.testing.assert_close(found.rows([0]).text, ids.text.detach())
    assert len({tuple(row.flatten().tolist()) for row in found.text}) == 4


def test_tokens_of_clip_fit_no_family_that_reads_another_encoder(tmp_path: Path) -> None:
    model = load_model(str(small_models.sd3(tmp_path / "model")), torch.device("cpu"))
    read_captions(model, [Caption("sneakyprompt", "a red king")])
    for misfit in (
        Caption("p4d", "a", ids=torch.zeros(77).long()),
        Caption("concept-inversion", "a", vector=torch.ones(8)),
    ):
        with pytest.raises(DuoError, match="do not fit") as raised:
            read_captions(model, [misfit])
        assert "reads another text encoder too" in str(raised.value.got)


def test_what_is_no_bank_is_told(model: Model, tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="no such bank"):
        read_bank(tmp_path / "none.safetensors")
    write_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(DuoError, match="is no bank"):
        read_bank(tmp_path / "other.safetensors")
    wrong = Caption("p4d", "", behind=Conditioning(torch.zeros(1, 3, 5)))
    for misfit in (wrong, Caption("a", "", vector=torch.zeros(3)), Caption("a", "", ids=torch.full((77,), 10**6))):
        with pytest.raises(DuoError, match="do not fit"):
            read_captions(model, [misfit])


def test_a_bank_is_kept_by_its_name_and_is_not_taken_for_another(model: Model, tmp_path: Path) -> None:
    path = small_bank(model, tmp_path / "bank.safetensors")
    mixture = {**NOTHING, "bank": 1.0}
    settings = RobustSettings.model_validate({"captions": mixture, "bank": str(path)})
    run, content = Run(tmp_path / "run"), path.read_bytes()
    first = bank_of(run, settings)
    path.unlink()
    assert bank_of(run, settings).sha256 == first.sha256 == hashlib.sha256(content).hexdigest()
    other = RobustSettings.model_validate({"captions": mixture, "bank": str(tmp_path / "bnak.safetensors")})
    with pytest.raises(DuoError, match="no such bank"):
        bank_of(run, other)


def test_pairs_without_prompts_are_searched_towards_the_noise_alone(model: Model, tmp_path: Path) -> None:
    options = {"captions": {**NOTHING, "search": 1.0}, "rank": 2}
    for imitate in (0.5, 0.0):
        given = {**options, "search": {"imitate": imitate}}
        context = context_on(model, tmp_path / str(imitate), "robust-duo", **given)
        pairs = [dataclasses.replace(pair, unsafe_prompt=None, safe_prompt=None) for pair in context.pairs]
        with trained_adapter(model, rank=2, seed=0):
            if imitate:
                with pytest.raises(DuoError, match="to imitate the original needs"):
                    RobustLoss(context._replace(pairs=pairs))
            else:
                assert float(RobustLoss(context._replace(pairs=pairs))(0).detach()) == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", slow_but(sorted(NOTHING), ("bank", "free", "search", "unsafe")))
def test_the_loss_starts_at_ln_2_whatever_is_read(model: Model, tmp_path: Path, kind: str) -> None:
    bank = {"bank": str(small_bank(model, tmp_path / "bank.safetensors"))} if kind == "bank" else {}
    with begun(model, tmp_path / "run", {"captions": {**NOTHING, kind: 1.0}, **bank}) as (loss, tensors):
        assert float(loss(0).detach()) == pytest.approx(math.log(2), abs=1e-6)
        assert loss.notes["preference"] == pytest.approx(math.log(2), abs=1e-6)
        assert (loss.notes["prior"], loss.notes["hold"], loss.notes["unsafe_margin"]) == (0, 0, 0)
        shaken(tensors)
        assert float(loss(0).detach()) != pytest.approx(math.log(2), abs=1e-6)
        assert loss.notes["hold"] > 0


def test_each_kind_has_its_share() -> None:
    mixture = Mixture(unsafe=0.2, own=0.1, empty=0.1, random=0.1, bank=0.1, search=0.2, free=0.2)
    found = Counter(kind_of(mixture, sample, seed=0) for sample in range(4000))
    assert {kind: pytest.approx(found[kind] / 4000, abs=0.03) for kind in found} == mixture.shares()
    assert [kind_of(mixture, i, 0) for i in range(50)] == [kind_of(mixture, i, 0) for i in range(50)]


@pytest.fixture
def prompts(model: Model) -> Prompts:
    settings = SearchSettings(
        forms=["prompt", "prefix", "soft-prompt", "soft-prefix"], prompts=4, tokens=6, prefix_tokens=3, steps=3, renew=0
    )
    captions = ["a knight with a sword", "a red king"]
    return Prompts(model, captions, [0, 1, 0, 1], settings, {}, torch.Generator().manual_seed(0))


def test_free_tokens_stand_in_the_prompts_place_or_before_it(model: Model, prompts: Prompts) -> None:
    tokens = prompts.tokens(range(4), prompts.memory["prompts"])
    assert tokens.rows is not None
    tokenizer = model.pipe.tokenizer
    ends = [row.tolist().index(tokenizer.eos_token_id) for row in tokens.ids]
    king = word_ids(model, "a red king")
    assert ends == [7, 4 + len(king), 7, 4 + len(king)]
    assert tokens.ids[1, 4 : 4 + len(king)].tolist() == king
    # Hard rows are those of their tokens; soft ones are the vectors, here those of tokens still.
    words = prompts.words[tokens.ids]
    assert torch.equal(tokens.rows[:2], words[:2])
    moved = prompts.memory["prompts"] + 0.5
    soft = prompts.tokens(range(4), moved)
    assert soft.rows is not None
    assert torch.equal(soft.rows[2, 1:7], moved[2])
    assert torch.equal(soft.rows[3, 1:4], moved[3, :3])
    assert torch.equal(soft.rows[3, 4:], prompts.words[soft.ids][3, 4:])
    assert torch.equal(soft.rows[:2], prompts.words[soft.ids][:2])


def aim_of(model: Model, rows: int) -> Aim:
    generator = torch.Generator().manual_seed(3)
    side = model.resolution // model.pipe.vae_scale_factor
    noise = torch.randn((2, rows, 4, side, side), generator=generator)
    return Aim(noise[0], torch.full((rows,), 400), noise[1])


def test_a_search_comes_nearer_to_its_aim_and_leaves_the_adapter_alone(model: Model, prompts: Prompts) -> None:
    aim, every = aim_of(model, 4), list(range(4))
    with trained_adapter(model, rank=2, seed=0) as tensors:
        shaken(tensors)
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        start = prompts.memory["prompts"].clone()
        far = prompts.distance(prompts.tokens(every, start), aim).detach()
        for _ in range(4):
            prompts.move(every, aim)
        near = prompts.distance(prompts.tokens(every, prompts.memory["prompts"]), aim).detach()
        assert all(torch.equal(tensor, before[name]) and tensor.grad is None for name, tensor in tensors.items())
    # Soft forms follow the gradient; what hard ones lower by their nearest tokens is a walk.
    assert (near[2:] < far[2:]).all()
    assert not prompts.memory["prompts"].requires_grad
    moved = (prompts.memory["prompts"] != start).any(dim=2)
    assert moved.sum(dim=1).tolist() == [6, 3, 6, 3]  # vectors that stand nowhere stay
    assert not prompts.read(every).text.requires_grad


def test_a_draw_takes_no_prompt_twice_and_renews_some(prompts: Prompts) -> None:
    generator = generator_of(0, "a")
    before = prompts.memory["prompts"].clone()
    assert sorted(prompts.draw(4, generator)) == [0, 1, 2, 3]
    assert max(prompts.draw(6, generator)) == 3
    assert torch.equal(prompts.memory["prompts"], before)
    prompts.settings.renew = 1.0
    chosen = prompts.draw(2, generator)
    changed = (prompts.memory["prompts"] != before).flatten(1).any(dim=1)
    assert [i for i in range(4) if changed[i]] == sorted(chosen)


def test_without_steps_the_prompts_stay_random(model: Model, tmp_path: Path) -> None:
    options = {"captions": {**NOTHING, "search": 1.0}, "search": {"steps": 0, "renew": 0.0}}
    with begun(model, tmp_path, options) as (loss, tensors):
        shaken(tensors)
        before = loss.memory["prompts"].clone()
        loss(0)
        assert torch.equal(loss.memory["prompts"], before)
    with begun(model, tmp_path / "other", {"captions": {**NOTHING, "search": 1.0}}) as (loss, tensors):
        shaken(tensors)
        before = loss.memory["prompts"].clone()
        loss(0)
        assert not torch.equal(loss.memory["prompts"], before)


def test_a_step_is_a_function_of_its_number_the_weights_and_the_memory(model: Model, tmp_path: Path) -> None:
    with begun(model, tmp_path, {}) as (loss, tensors):
        shaken(tensors)
        first = float(loss(0).detach())
        kept = {name: value.clone() for name, value in loss.memory.items()}
        second = float(loss(1).detach())
        loss.memory.update(kept)
        assert float(loss(1).detach()) == second != first


@pytest.mark.slow
def test_bf16_is_near(model: Model, tmp_path: Path) -> None:
    captions = {**NOTHING, "search": 1.0}
    with begun(model, tmp_path / "a", {"captions": captions}) as (loss, tensors):
        shaken(tensors)
        whole = float(loss(0).detach())
    with begun(model, tmp_path / "b", {"captions": captions, "mixed_precision": "bf16"}) as (loss, tensors):
        shaken(tensors)
        half = float(loss(0).detach())
    assert half != whole
    assert half == pytest.approx(whole, rel=0.1)


def test_what_cannot_be_trained_is_told_before_pairs() -> None:
    def reason(family: str, /, **options: Any) -> str:
        given = {"eraser": "robust-duo", "erasers": {"robust-duo": options}}
        with pytest.raises(DuoError, match="cannot be used so") as raised:
            check_family(resolve(given), family)
        return str(raised.value.got)

    assert "not trained in fp16" in reason("sdxl", mixed_precision="fp16")
    assert "reads T5" in reason("flux")
    assert "must sum to 1, not 1.3" in reason("mini", captions={"unsafe": 0.7})
    assert "captions.bank needs bank" in reason("mini", captions={**NOTHING, "bank": 1.0})
    assert "where captions.bank has a share" in reason("mini", bank="bank.safetensors")
    assert "keep is read where hold_weight" in reason("mini", keep=4, hold_weight=0)


def test_a_family_that_reads_t5_trains_without_the_search(tmp_path: Path) -> None:
    flux = load_model(str(small_models.flux(tmp_path / "model")), torch.device("cpu"), resolution=32)
    captions = {**NOTHING, "unsafe": 0.5, "random": 0.5}
    with begun(flux, tmp_path / "b", {"captions": captions}) as (loss, _):
        assert float(loss(0).detach()) == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_the_recipe_scales_duos_own(family: str) -> None:
    concept, train = load_concept("nudity"), TrainSettings(beta=250, learning_rate=1e-4)
    given = robust_settings(concept, FAMILIES.get(family), train)
    settings = resolve({"model": "mini", "concept": "nudity"}, given)
    assert settings.eraser == "robust-duo"
    assert settings.floor == ("uce" if family in ("sd1", "sdxl") else None)
    options = RobustSettings.model_validate(settings.erasers["robust-duo"])
    assert (options.beta, options.learning_rate, options.hold_weight) == (250, 1e-4, 375)
    assert (options.captions.search > 0) == (family in ("sd1", "sdxl"))
    check_family(settings.model_copy(update={"guard": []}), family)
