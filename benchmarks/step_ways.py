"""The ways to make a training step that benchmarks/step.py times: ours, the authors', and each option's."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from PIL import Image

from duo_unlearn.edits.lora import adapters_off, attach
from duo_unlearn.erasers.duo.loss import DuoLoss
from duo_unlearn.erasers.duo.objective import Reference, Terms, duo_loss
from duo_unlearn.erasers.duo.reference_bank import ReferenceBank
from duo_unlearn.erasers.duo.settings import TrainSettings
from duo_unlearn.erasers.duo.step import draw as draw_noise
from duo_unlearn.erasers.duo.step import pair_at
from duo_unlearn.erasers.latents import Cache
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import lacks_bf16, load_model
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import SUBJECTS, random_scene
from duo_unlearn.runs.folder import Run

TOLERANCE: Final = 2e-2
"""By how much of its norm a gradient may differ between two ways that have the same mathematics.

Under shared noise the members of a pair have nearly the same gradient, so their difference has fewer digits.
"""
EVERY: Final = 4
"""The k of train.prior_every that is measured."""
ROUNDS: Final = 2
"""The draws a pair of train.reference_bank that are measured; a step's time does not depend on it."""


def drawn_pairs(count: int) -> tuple[list[Image.Image], list[Image.Image]]:
    """Safe and unsafe pictures: the same drawn scenes with empty hands and with a sword."""
    import random

    rng = random.Random(0)
    scenes = [random_scene(rng, subjects=SUBJECTS, items=("sword",)) for _ in range(count)]
    return [draw(s.counterpart("none")) for s in scenes], [draw(s) for s in scenes]


def cached(model: Model, safe: list[Image.Image], unsafe: list[Image.Image]) -> Cache:
    """What `build_cache` holds in memory."""
    return Cache(model.encode_images(safe), model.encode_images(unsafe), model.condition([""]))


def authors_step(
    model: Model,
    safe: list[Image.Image],
    unsafe: list[Image.Image],
    samples: list[int],
    settings: TrainSettings,
    seed: int,
) -> Terms:
    """One step's loss from pixels and prompts."""
    chosen = [pair_at(sample, len(safe), seed) for sample in samples]
    moments = model.encode_images([safe[i] for i in chosen] + [unsafe[i] for i in chosen])
    draws = draw_noise(samples, moments.mean.shape[1:], settings, seed)
    latents = moments.mean + moments.std * torch.cat([draws.posterior, draws.posterior])
    eps, t = torch.cat([draws.eps, draws.eps]), torch.cat([draws.safe_t, draws.unsafe_t])
    noisy, target = model.noise.add_noise(latents, eps, t), model.noise.target(latents, eps, t)
    text = model.condition([""] * (3 * len(samples)))
    pairs_text, prior_text = text.rows(slice(0, 2 * len(samples))), text.rows(slice(2 * len(samples), None))
    last = torch.full((len(samples),), model.noise.last_timestep)
    with torch.no_grad(), adapters_off(model.denoiser):
        reference = model.predict(noisy, t, pairs_text)
        prior_reference = model.predict(draws.prior, last, prior_text)
    policy = model.predict(noisy, t, pairs_text)
    prior_policy = model.predict(draws.prior, last, prior_text)
    known = Reference.of(reference, target, prior_reference)
    return duo_loss(policy, known, target, prior_policy, beta=settings.beta, prior_weight=settings.prior_weight)


class Setup(NamedTuple):
    """The mini model with an adapter off the identity, so that every term and gradient is a real number."""

    model: Model
    cache: Cache
    safe: list[Image.Image]
    unsafe: list[Image.Image]
    parameters: list[torch.nn.Parameter]


def setup(batch: int, *, channels_last: bool = False, compiled: bool = False) -> Setup:
    """A fresh model. channels_last, compiled: options that change it."""
    model = load_model("mini", torch.device("cpu"), channels_last=channels_last)
    safe, unsafe = drawn_pairs(8 * batch)
    cache = cached(model, safe, unsafe)
    denoiser: Any = model.denoiser
    parameters = attach(model, rank=32, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
    if compiled:
        denoiser.compile_repeated_blocks()
    return Setup(model, cache, safe, unsafe, parameters)


class Timed(NamedTuple):
    """One step: seconds, loss, gradients."""

    seconds: float
    loss: float
    gradients: list[torch.Tensor]


Make = Callable[[list[int]], Terms]


def timed(make: Make, samples: list[int], parameters: list[torch.nn.Parameter], *, at_once: int) -> Timed:
    """Forward and backward of one step, `at_once` pairs a batch, gradients accumulated over batches."""
    batches = [samples[i : i + at_once] for i in range(0, len(samples), at_once)]
    loss, begin = 0.0, time.perf_counter()
    for batch in batches:
        share = make(batch).loss * len(batch) / len(samples)
        share.backward()  # type: ignore[no-untyped-call]
        loss += share.item()
    spent = time.perf_counter() - begin
    gradients = [p.grad.clone() for p in parameters if p.grad is not None]
    for parameter in parameters:
        parameter.grad = None
    return Timed(spent, loss, gradients)


def compare(a: Timed, b: Timed) -> None:
    """Fail when two ways do not give the same loss and gradients."""
    torch.testing.assert_close(a.loss, b.loss, rtol=1e-3, atol=1e-6)
    for x, y in zip(a.gradients, b.gradients, strict=True):
        # By norm: of a gradient's smallest entries little but rounding is left.
        off, norm = float(torch.linalg.vector_norm(x - y)), float(torch.linalg.vector_norm(y))
        if not off <= TOLERANCE * norm + 1e-8:
            sys.exit(f"a gradient is off by {off / norm:.2g} of its norm (allowed: {TOLERANCE:g})")


class Way(NamedTuple):
    """A way to make a step. same_as: the name of the way whose loss and gradients it must have; "": none has them."""

    make: Make
    parameters: list[torch.nn.Parameter]
    at_once: int
    same_as: str = ""


def ways_of(batch: int, folder: Path, *, compiled: bool) -> dict[str, Way]:
    """Every way, by name, the plain step first."""
    settings = TrainSettings(train_batch_size=batch, prior_weight=2e4)
    made = setup(batch)
    model, cache, safe, unsafe, parameters = made

    def theirs(samples: list[int]) -> Terms:
        return authors_step(model, safe, unsafe, samples, settings, 0)

    def loss_of(made: Setup, changed: TrainSettings, *, bank: bool = False, prior: bool = True) -> Make:
        kept = ReferenceBank(model, cache, [], Run(folder), changed, seed=0, name="duo") if bank else None
        loss = DuoLoss(made.model, made.cache, changed, 0, kept)
        return lambda samples: loss(changed.prior_every - 1 if prior else 0, samples)

    thinned = settings.model_copy(update={"prior_every": EVERY})
    banked = settings.model_copy(update={"reference_bank": ROUNDS})
    both = thinned.model_copy(update={"reference_bank": ROUNDS})
    ways = {
        "plain": Way(loss_of(made, settings), parameters, batch),
        "authors": Way(theirs, parameters, 1, "plain"),
        "one batch": Way(theirs, parameters, batch, "plain"),
        "no prior": Way(loss_of(made, thinned, prior=False), parameters, batch),
        "asked": Way(loss_of(made, banked), parameters, batch),
        "bank": Way(loss_of(made, banked, bank=True), parameters, batch, "asked"),
        "bank, no prior": Way(loss_of(made, both, bank=True, prior=False), parameters, batch),
    }
    for name, options in (("channels_last", {"channels_last": True}), ("compile", {"compiled": True})):
        if name != "compile" or compiled:
            other = setup(batch, **options)
            ways[name] = Way(loss_of(other, settings), other.parameters, batch, "plain")
    if lacks_bf16(model.device) is None:

        def half(samples: list[int]) -> Terms:
            with torch.autocast("cpu", torch.bfloat16):
                return ways["plain"].make(samples)

        ways["bf16"] = Way(half, parameters, batch)
    return ways
