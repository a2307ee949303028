"""The training step against the authors' way, side by side on the mini model.

Ours reads cached VAE moments and text embeddings, and runs policy and reference once each on [safe; unsafe; prior].
The authors' way caches nothing: every step sends the pixels through the VAE and the prompts
through the text encoder, and the prior through the denoiser in passes of its own. Same mathematics, same batch, same
randomness: the losses and the gradients must agree, and the ratio of times is what is reported.

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

from duo_unlearn.adapters.lora import adapters_off, attach
from duo_unlearn.config import TrainSettings
from duo_unlearn.families.base import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.mini.scenes import SUBJECTS, draw, random_scene
from duo_unlearn.objective import Terms, duo_loss
from duo_unlearn.session import machine
from duo_unlearn.training.cache import Cache
from duo_unlearn.training.step import draw as draw_noise
from duo_unlearn.training.step import make_batch, pair_at, terms_of


def drawn_pairs(count: int) -> tuple[list[Image.Image], list[Image.Image]]:
    """Safe and unsafe pictures: the same drawn scenes with empty hands and with a sword."""
    import random

    rng = random.Random(0)
    scenes = [random_scene(rng, subjects=SUBJECTS, items=("sword",)) for _ in range(count)]
    return [draw(s.counterpart("none")) for s in scenes], [draw(s) for s in scenes]


def cached(model: Model, safe: list[Image.Image], unsafe: list[Image.Image]) -> Cache:
    """What `build_cache` holds in memory."""
    return Cache(*model.encode_images(safe), *model.encode_images(unsafe), model.encode_prompts([""])[0])


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
    text = model.encode_prompts([""] * (3 * len(samples)))
    pairs_text, prior_text = text[: 2 * len(samples)], text[2 * len(samples) :]
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


def timed(make: Callable[[list[int]], Terms], samples: list[int], parameters: list[torch.nn.Parameter]) -> Timed:
    """Forward and backward of one step."""
    begin = time.perf_counter()
    terms = make(samples)
    terms.loss.backward()
    spent = time.perf_counter() - begin
    gradients = [p.grad.clone() for p in parameters if p.grad is not None]
    for parameter in parameters:
        parameter.grad = None
    return Timed(spent, terms.loss.item(), gradients)


def compare(a: Timed, b: Timed) -> None:
    """Fail when the two ways do not give the same loss and gradients."""
    torch.testing.assert_close(a.loss, b.loss, rtol=1e-3, atol=1e-6)
    for x, y in zip(a.gradients, b.gradients, strict=True):
        torch.testing.assert_close(x, y, rtol=2e-2, atol=1e-3 * y.abs().max().item() + 1e-8)


def measure(steps: int, batch: int, warmup: int = 3) -> list[tuple[float, float]]:
    """Seconds of (ours, theirs), step by step in turn."""
    settings = TrainSettings(train_batch_size=batch, prior_weight=2e4)
    model, cache, safe, unsafe, parameters = setup(batch)
    found = []
    for step in range(steps + warmup):
        samples = list(range(step * batch, (step + 1) * batch))
        a = timed(
            lambda s: terms_of(model, None, make_batch(cache, model, s, settings, 0), settings), samples, parameters
        )
        b = timed(lambda s: authors_step(model, safe, unsafe, s, settings, 0), samples, parameters)
        compare(a, b)
        found.append((a.seconds, b.seconds))
    return found[warmup:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each, in turn")
    parser.add_argument("--batch", type=int, default=4, help="pairs a step")
    parser.add_argument("--json", action="store_true", help="one line of figures, last")
    arguments = parser.parse_args()
    pairs = measure(arguments.steps, arguments.batch)
    ratios = sorted(a / b for a, b in pairs)
    ratio = statistics.median(ratios)
    print(f"{machine()}; mini model, fp32, {arguments.batch} pairs a step, {len(pairs)} steps of each in turn")
    print(f"{'':24}{'median s':>10}")
    print(f"{'ours (cached)':24}{statistics.median(a for a, _ in pairs):10.4f}")
    print(f"{'authors (from pixels)':24}{statistics.median(b for _, b in pairs):10.4f}")
    print(f"ratio {ratio:.3f} (middle half {ratios[len(ratios) // 4]:.3f} to {ratios[-len(ratios) // 4]:.3f})")
    print("losses and gradients agree")
    if arguments.json:
        print(json.dumps({"ratio": round(ratio, 4), "steps": len(pairs), "batch": arguments.batch, "model": "mini"}))


if __name__ == "__main__":
    main()
