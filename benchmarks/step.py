"""The training step against the authors' way, side by side on the mini model.

Ours reads cached VAE moments and text embeddings, and runs policy and reference once each on [safe; unsafe; prior] of
all pairs. The authors' scripts cache nothing: every step sends the pixels through the VAE and the prompts through the
text encoder, the prior through the denoiser in passes of its own, and, as they work with one pair at a time
only, a step of 4 pairs is 4 accumulated batches of 1. Same mathematics, same pairs, same randomness: the losses and the
gradients must agree, and the ratio of times is what is reported. A second baseline, as if their scripts could take all
pairs in one batch, shows what of the gain is the cache's.

    python benchmarks/step.py            # a table
    python benchmarks/step.py --json     # and one line of figures, last
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from PIL import Image

from duo_unlearn.edits.lora import adapters_off, attach
from duo_unlearn.erasers.duo.objective import Terms, duo_loss
from duo_unlearn.erasers.duo.settings import TrainSettings
from duo_unlearn.erasers.duo.step import draw as draw_noise
from duo_unlearn.erasers.duo.step import make_batch, pair_at, terms_of
from duo_unlearn.erasers.latents import Cache
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import SUBJECTS, random_scene
from duo_unlearn.session import machine


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
    return duo_loss(
        policy, reference, target, prior_policy, prior_reference, beta=settings.beta, prior_weight=settings.prior_weight
    )


def setup(batch: int) -> tuple[Model, Cache, list[Image.Image], list[Image.Image], list[torch.nn.Parameter]]:
    """The mini model with an adapter off the identity, so that every term and gradient is a real number."""
    model = load_model("mini", torch.device("cpu"))
    safe, unsafe = drawn_pairs(8 * batch)
    cache = cached(model, safe, unsafe)
    parameters = attach(model, rank=32, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
    return model, cache, safe, unsafe, parameters


class Timed(NamedTuple):
    """One step: seconds, loss, gradients."""

    seconds: float
    loss: float
    gradients: list[torch.Tensor]


def timed(
    make: Callable[[list[int]], Terms], samples: list[int], parameters: list[torch.nn.Parameter], *, at_once: int
) -> Timed:
    """Forward and backward of one step, `at_once` pairs a batch, gradients accumulated over batches."""
    batches = [samples[i : i + at_once] for i in range(0, len(samples), at_once)]
    loss, begin = 0.0, time.perf_counter()
    for batch in batches:
        share = make(batch).loss * len(batch) / len(samples)
        share.backward()
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
        torch.testing.assert_close(x, y, rtol=2e-2, atol=1e-3 * y.abs().max().item() + 1e-8)


class Row(NamedTuple):
    """Seconds of one step: ours, the authors' as their scripts run, the authors' in one batch."""

    ours: float
    authors: float
    one_batch: float


def measure(steps: int, batch: int, warmup: int = 3) -> list[Row]:
    """Time the three ways, step by step in turn."""
    settings = TrainSettings(train_batch_size=batch, prior_weight=2e4)
    model, cache, safe, unsafe, parameters = setup(batch)

    def ours(samples: list[int]) -> Terms:
        return terms_of(model, None, make_batch(cache, model, samples, settings, 0), settings)

    def theirs(samples: list[int]) -> Terms:
        return authors_step(model, safe, unsafe, samples, settings, 0)

    found = []
    for step in range(steps + warmup):
        samples = list(range(step * batch, (step + 1) * batch))
        a = timed(ours, samples, parameters, at_once=batch)
        b = timed(theirs, samples, parameters, at_once=1)
        c = timed(theirs, samples, parameters, at_once=batch)
        compare(a, b)
        compare(a, c)
        found.append(Row(a.seconds, b.seconds, c.seconds))
    return found[warmup:]


def ratios(over: list[tuple[float, float]]) -> tuple[float, str]:
    """Median of the ratios a / b, and a text with their middle half."""
    found = sorted(a / b for a, b in over)
    ratio = statistics.median(found)
    return ratio, f"{ratio:.3f} (middle half {found[len(found) // 4]:.3f} to {found[-len(found) // 4]:.3f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each, in turn")
    parser.add_argument("--batch", type=int, default=4, help="pairs a step")
    parser.add_argument("--json", action="store_true", help="one line of figures, last")
    arguments = parser.parse_args()
    rows = measure(arguments.steps, arguments.batch)
    ratio, text = ratios([(row.ours, row.authors) for row in rows])
    cache_ratio, cache_text = ratios([(row.ours, row.one_batch) for row in rows])
    print(f"{machine()}; mini model, fp32, {arguments.batch} pairs a step, {len(rows)} steps of each in turn")
    print(f"{'':44}{'median s':>10}   ours / it")
    print(f"{'ours (cached, one batch)':44}{statistics.median(row.ours for row in rows):10.4f}")
    authors = f"authors (from pixels, {arguments.batch} batches of 1)"
    print(f"{authors:44}{statistics.median(row.authors for row in rows):10.4f}   {text}")
    print(f"{'from pixels, one batch':44}{statistics.median(row.one_batch for row in rows):10.4f}   {cache_text}")
    print("losses and gradients agree")
    if arguments.json:
        figures = {"ratio": round(ratio, 4), "ratio_one_batch": round(cache_ratio, 4), "steps": len(rows)}
        print(json.dumps(figures | {"batch": arguments.batch, "model": "mini"}))


if __name__ == "__main__":
    main()
