"""Training on the mini model with drawn pairs: the real UNet, VAE, text encoder, PEFT and accelerate."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from duo_unlearn.edits.lora import adapter_tensors
from duo_unlearn.edits.provenance import WEIGHTS
from duo_unlearn.erasers.checkpoint import identity
from duo_unlearn.erasers.duo.step import draw as draw_noise
from duo_unlearn.erasers.duo.step import make_batch, pair_at, terms_of
from duo_unlearn.erasers.latents import build_cache
from duo_unlearn.erasers.optimizer import rate_factor
from duo_unlearn.erasers.trainer import train
from duo_unlearn.errors import DuoError, Interrupted
from duo_unlearn.families.inversion import invert
from duo_unlearn.families.load import load_model
from duo_unlearn.records import Captions, Pair
from duo_unlearn.runs.folder import Run

from ..command import as_process
from ..slow import slow
from .small import CPU, pairs_in, prepare, quick


def test_every_epoch_uses_every_pair_once() -> None:
    for epoch in range(3):
        assert sorted(pair_at(epoch * 7 + i, 7, seed=1) for i in range(7)) == list(range(7))
    assert [pair_at(i, 7, 1) for i in range(7)] != [pair_at(7 + i, 7, 1) for i in range(7)]


def test_draws_depend_on_the_sample_alone() -> None:
    shape = torch.Size((4, 2, 2))
    together, alone = draw_noise([3, 9], shape, quick(), 0), draw_noise([9], shape, quick(), 0)
    assert torch.equal(together.eps[1], alone.eps[0])
    assert together.safe_t[1] == alone.safe_t[0]


def test_a_pair_shares_t_only_when_asked() -> None:
    shape, samples = torch.Size((4, 2, 2)), list(range(20))
    shared = draw_noise(samples, shape, quick(), 0)
    apart = draw_noise(samples, shape, quick(share_timestep=False), 0)
    assert torch.equal(shared.safe_t, shared.unsafe_t)
    assert not torch.equal(apart.safe_t, apart.unsafe_t)
    assert int(max(apart.safe_t.max(), apart.unsafe_t.max())) < 750


def test_fresh_adapter_has_loss_ln2_and_no_prior(run: Run) -> None:
    from duo_unlearn.edits.lora import attach

    model, cache, _ = prepare(run)
    attach(model, rank=4, seed=0)
    terms = terms_of(model, None, make_batch(cache, model, [0, 1, 2], quick(), 0), quick())
    assert terms.preference.item() == pytest.approx(0.693147, abs=1e-5)
    assert terms.prior.item() == 0
    assert torch.equal(terms.logit, torch.zeros(3))


def test_prior_rows_are_pure_noise_at_the_last_timestep(run: Run) -> None:
    model, cache, _ = prepare(run)
    batch = make_batch(cache, model, [0, 1, 2], quick(), 0)
    assert batch.noisy.shape[0] == 9
    assert batch.target.shape[0] == 6
    assert batch.t[6:].tolist() == [999] * 3
    assert torch.equal(batch.noisy[6:], draw_noise([0, 1, 2], cache.safe.mean.shape[1:], quick(), 0).prior)
    assert make_batch(cache, model, [0], quick(prior_weight=0), 0).noisy.shape[0] == 2


@pytest.mark.slow
def test_training_moves_the_margins_the_right_way_and_logs_it(run: Run) -> None:
    model, cache, pairs = prepare(run)
    settings = quick(max_train_steps=16, rank=8)
    trained = train(model, cache, pairs, run, settings, seed=0, name="duo", quiet=True)
    lines = [json.loads(line) for line in run.metrics("duo").read_text().splitlines()]
    assert trained.steps == 16
    assert [line["step"] for line in lines] == list(range(1, 17))
    first, last = lines[:5], lines[-5:]
    assert sum(x["preference"] for x in last) < sum(x["preference"] for x in first)
    assert sum(x["unsafe_margin"] - x["safe_margin"] for x in last) > 0
    assert set(lines[0]) == {
        "step", "loss", "preference", "prior", "safe_margin", "unsafe_margin", "accuracy", "gradient_norm", "lr",
        "pairs_per_second",
    }  # fmt: skip


@pytest.mark.slow
def test_the_base_weights_do_not_change(run: Run) -> None:
    model, cache, pairs = prepare(run)
    before = {k: v.clone() for k, v in model.denoiser.state_dict().items()}
    train(model, cache, pairs, run, quick(), seed=0, name="duo", quiet=True)
    after = {k.replace(".base_layer", ""): v for k, v in model.denoiser.state_dict().items() if "lora_" not in k}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.slow
def test_accumulation_equals_one_batch(tmp_path: Path) -> None:
    def run_with(name: str, batch: int, accumulation: int) -> dict[str, torch.Tensor]:
        model, cache, pairs = prepare(Run(tmp_path / name))
        settings = quick(train_batch_size=batch, gradient_accumulation_steps=accumulation, max_train_steps=2)
        train(model, cache, pairs, Run(tmp_path / name), settings, seed=0, name="duo", quiet=True)
        return adapter_tensors(model.denoiser)

    one, four, less = run_with("one", 4, 1), run_with("four", 1, 4), run_with("less", 1, 1)
    # By matrix: Adam's first steps go by sign, which rounding decides where a gradient is nearly zero.
    apart = {name: float((four[name] - value).norm() / value.norm()) for name, value in one.items()}
    assert max(apart.values()) < 0.02
    of_less = [float((less[name] - value).norm() / value.norm()) for name, value in one.items() if "lora_B" in name]
    assert min(of_less) > 0.02  # a batch of one is told apart


@pytest.mark.parametrize(
    "changes",
    [
        {"pairing": "unpaired"},
        *slow([{"sides": "safe"}, {"sides": "unsafe"}, {"prior_weight": 0}, {"share_timestep": False}]),
    ],
)
def test_each_variant_trains(run: Run, changes: dict[str, object]) -> None:
    model, cache, pairs = prepare(run)
    train(model, cache, pairs, run, quick(max_train_steps=2).model_copy(update=changes), seed=0, name="duo", quiet=True)
    assert any(value.abs().sum() > 0 for name, value in adapter_tensors(model.denoiser).items() if "lora_B" in name)


def test_cache_is_read_back_and_made_anew_for_other_pairs(run: Run) -> None:
    model, cache, pairs = prepare(run)
    stamp = run.moments.stat().st_mtime_ns
    again = build_cache(model, pairs, run.pairs, run.moments)
    assert run.moments.stat().st_mtime_ns == stamp
    assert torch.equal(again.safe.mean, cache.safe.mean)
    # What is computed from it is the same to the last bit, so a resumed run is the run that was never stopped.
    first, second = (invert(model, one.unsafe, steps=2, batch=2, seed=0, quiet=True) for one in (cache, again))
    assert torch.equal(first, second)
    fewer = build_cache(model, pairs[:3], run.pairs, run.moments)
    assert len(fewer.safe.mean) == 3
    # In another precision texts read otherwise too.
    model.variant = f"other than {model.variant}"
    stamp = run.moments.stat().st_mtime_ns
    build_cache(model, pairs[:3], run.pairs, run.moments)
    assert run.moments.stat().st_mtime_ns > stamp


def test_pictures_are_encoded_once_whatever_captions_go_with_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    model, cache, pairs = prepare(run)
    named = [dataclasses.replace(pair, unsafe_prompt="a sword", safe_prompt="a book") for pair in pairs]
    with monkeypatch.context() as patch:
        patch.setattr(model, "encode_images", None)
        beside = run.moments.with_name("latents-dcpo.safetensors")
        other = build_cache(model, named, run.pairs, beside, captions="dual")
    assert torch.equal(other.unsafe.mean, cache.unsafe.mean)
    assert torch.equal(other.safe.std, cache.safe.std)
    assert other.safe_text is not None
    assert len(build_cache(model, named[:3], run.pairs, beside).safe.mean) == 3


def test_non_finite_loss_keeps_the_last_good_checkpoint(run: Run) -> None:
    model, cache, pairs = prepare(run)
    train(model, cache, pairs, run, quick(max_train_steps=2), seed=0, name="duo", quiet=True)
    kept = run.checkpoint("duo").read_bytes()
    broken = cache._replace(safe=cache.safe._replace(mean=cache.safe.mean * float("nan")))
    fresh = load_model("mini", CPU)
    with pytest.raises(DuoError, match="not finite at step 3"):
        train(fresh, broken, pairs, run, quick(max_train_steps=4), seed=0, name="duo", quiet=True)
    assert run.checkpoint("duo").read_bytes() == kept


@pytest.mark.slow
def test_sigterm_saves_and_the_resumed_run_is_bit_for_bit_the_same(tmp_path: Path) -> None:
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    model, cache, pairs = prepare(whole)
    settings = quick(max_train_steps=12, checkpointing_steps=100)
    train(model, cache, pairs, whole, settings, seed=0, name="duo", quiet=True)
    expected = adapter_tensors(model.denoiser)

    def interrupt() -> None:
        while not cut.metrics("duo").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Interrupted, match="its state is saved"):
        train(load_model("mini", CPU), cache, pairs, cut, settings, seed=0, name="duo", quiet=True)
    resumed = load_model("mini", CPU)
    trained = train(resumed, cache, pairs, cut, settings, seed=0, name="duo", quiet=True)
    assert 0 < trained.resumed_at < 12
    found = adapter_tensors(resumed.denoiser)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert [json.loads(x)["step"] for x in cut.metrics("duo").read_text().splitlines()] == list(range(1, 13))


def command(run: Run) -> list[str]:
    words = [
        "train",
        "-o",
        str(run.folder),
        "--max_train_steps",
        "25",
        "--checkpointing_steps",
        "3",
        "--rank",
        "4",
        "--set",
        "train.captions=none",
    ]
    return as_process(*words)


@pytest.mark.slow
def test_kill_9_and_resume_gives_the_uninterrupted_adapter(tmp_path: Path) -> None:
    runs: dict[str, Run] = {name: Run(tmp_path / name) for name in ("whole", "killed")}
    for run in runs.values():
        pairs_in(run.folder)
    subprocess.run(command(runs["whole"]), check=True, capture_output=True)
    process = subprocess.Popen(command(runs["killed"]), stderr=subprocess.DEVNULL)
    wait_for(lambda: (path := runs["killed"].metrics("duo")).exists() and len(path.read_text().splitlines()) > 8)
    process.kill()
    process.wait()
    assert not runs["killed"].edits.exists()
    subprocess.run(command(runs["killed"]), check=True, capture_output=True)
    assert weights(runs["killed"]) == weights(runs["whole"])


def weights(run: Run) -> bytes:
    return (run.edit("duo") / WEIGHTS).read_bytes()


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def test_a_checkpoint_of_other_settings_is_refused(run: Run) -> None:
    model, cache, pairs = prepare(run)
    train(model, cache, pairs, run, quick(max_train_steps=2), seed=0, name="duo", quiet=True)
    with pytest.raises(DuoError, match="other settings"):
        train(load_model("mini", CPU), cache, pairs, run, quick(beta=100.0), seed=0, name="duo", quiet=True)


def test_other_prompts_of_a_pair_that_was_brought_are_another_training(run: Run) -> None:
    model, _, (pair, *_) = prepare(run)
    made, brought = (dataclasses.replace(pair, seed=seed, unsafe_prompt="a", safe_prompt="b") for seed in (1, None))

    def same(pair: Pair, captions: Captions) -> bool:
        both = (pair, dataclasses.replace(pair, safe_prompt="c"))
        return len({identity(quick(captions=captions), [one], model, 0) for one in both}) == 1

    assert not same(brought, "dual")
    assert not same(brought, "unsafe")
    assert same(brought, "none")  # nobody reads them
    assert same(made, "dual")  # with another prompt it would be another picture


@pytest.mark.slow
def test_the_rate_decays_and_its_length_belongs_to_the_run(run: Run) -> None:
    model, cache, pairs = prepare(run)
    settings = quick(lr_scheduler="linear", max_train_steps=4)
    train(model, cache, pairs, run, settings, seed=0, name="duo", quiet=True)
    lines = [json.loads(line) for line in run.metrics("duo").read_text().splitlines()]
    assert [line["lr"] for line in lines] == pytest.approx([2e-3, 1.5e-3, 1e-3, 5e-4])
    with pytest.raises(DuoError, match="other settings"):
        train(load_model("mini", CPU), cache, pairs, run, quick(lr_scheduler="linear"), seed=0, name="duo", quiet=True)


def test_rate_factors() -> None:
    assert [rate_factor(s, 4, "cosine") for s in (0, 2)] == pytest.approx([1.0, 0.5])
    assert {rate_factor(s, 4, "constant") for s in range(4)} == {1.0}
