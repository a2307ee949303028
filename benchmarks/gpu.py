"""The training step of published-size models with random weights, on a GPU: against the authors' way, and by options.

Ours: cached latents and text embeddings, all pairs in one batch, one reference and one policy pass. Theirs: pixels
through the VAE and prompts through the text encoders at every step, one pair at a time, gradients accumulated. Weights
are random from the published configurations, so nothing is downloaded; a step's time does not depend on their values.

    python benchmarks/gpu.py --model sd1             # also sdxl, sd3; mini on a CPU
    python benchmarks/gpu.py --model sd1 --options   # each option alone
    python benchmarks/gpu.py --model mini --json     # one line of figures, last
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from random_weights import random_model
from ratios import matrix_rate, operations

from duo_unlearn.edits.files import fused, read_edit, save_adapter
from duo_unlearn.edits.lora import adapters_off, attach, detach
from duo_unlearn.erasers.duo.loss import DuoLoss
from duo_unlearn.erasers.duo.objective import Reference, Terms, duo_loss
from duo_unlearn.erasers.duo.reference_bank import ReferenceBank
from duo_unlearn.erasers.duo.settings import TrainSettings
from duo_unlearn.erasers.duo.step import draw
from duo_unlearn.erasers.latents import Cache
from duo_unlearn.families.interface import Moments, SampleRequest
from duo_unlearn.families.load import lay_channels_last, load_model
from duo_unlearn.families.model import DiffusersModel
from duo_unlearn.runs.folder import Run
from duo_unlearn.session import machine

OPTIONS = ("bank", "fused", "channels_last", "compile", "checkpointing")
"""bank: train.reference_bank, filled beforehand. fused: the optimizer. compile: by region (the blocks that repeat);
the whole denoiser of sd3, whose class in diffusers does not name such blocks."""


class Setup(NamedTuple):
    """A model with an adapter, what is cached of its pairs, and the pairs themselves."""

    model: DiffusersModel
    loss: DuoLoss
    pictures: list[Image.Image]
    optimizer: torch.optim.Optimizer
    settings: TrainSettings
    precision: torch.dtype


def setup(family: str, device: torch.device, batch: int, options: set[str]) -> Setup:
    """A fresh model with the options on."""
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    if family == "mini":
        loaded = load_model("mini", device)
        assert isinstance(loaded, DiffusersModel)
        model = loaded
    else:
        model = random_model(family, device, precision)
    settings = TrainSettings(train_batch_size=batch, beta=500, prior_weight=5e6, reference_bank=int("bank" in options))
    side = model.resolution
    pictures = [Image.new("RGB", (side, side), (40 * i % 255, 90, 160)) for i in range(2 * batch)]
    moments = model.encode_images(pictures[:2])
    spread = Moments(*(part.cpu()[:1].expand(batch, *part.shape[1:]) for part in moments))
    empty = model.condition([""]).map(lambda tensor: tensor.float().cpu())
    if "channels_last" in options:
        lay_channels_last(model)
    parameters = attach(model, rank=32, seed=0)
    denoiser: Any = model.denoiser
    if "checkpointing" in options:
        denoiser.enable_gradient_checkpointing()
    if "compile" in options:
        denoiser.compile_repeated_blocks() if family != "sd3" else denoiser.compile()
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused="fused" in options)
    cache, bank = Cache(spread, spread, empty), None
    if "bank" in options:
        with tempfile.TemporaryDirectory() as folder, _autocast(device, precision):
            bank = ReferenceBank(model, cache, [], Run(Path(folder)), settings, seed=0, name="duo")
            bank.of(range(batch), prior=True)
    return Setup(model, DuoLoss(model, cache, settings, 0, bank), pictures, optimizer, settings, precision)


def ours(made: Setup, step: int) -> float:
    """One step from the cache."""
    batch = made.settings.train_batch_size
    samples = list(range(step * batch, (step + 1) * batch))
    with _autocast(made.model.device, made.precision):
        terms = made.loss(step, samples)
    terms.loss.backward()  # type: ignore[no-untyped-call]
    return _update(made, terms.loss)


def theirs(made: Setup, step: int) -> float:
    """One step from pixels and prompts, a pair at a time."""
    batch, loss = made.settings.train_batch_size, torch.zeros(())
    for i in range(batch):
        with _autocast(made.model.device, made.precision):
            terms = _pair_from_pixels(made, step * batch + i)
        share = terms.loss / batch
        share.backward()  # type: ignore[no-untyped-call]
        loss = loss + share.detach().cpu()
    return _update(made, loss)


def _pair_from_pixels(made: Setup, sample: int) -> Terms:
    model, settings = made.model, made.settings
    moments = model.encode_images(made.pictures[:2])
    draws = draw([sample], moments.mean.shape[1:], settings, 0)
    latents = moments.mean.cpu() + moments.std.cpu() * torch.cat([draws.posterior, draws.posterior])
    eps, t = torch.cat([draws.eps, draws.eps]), torch.cat([draws.safe_t, draws.unsafe_t])
    noisy, target = model.noise.add_noise(latents, eps, t), model.noise.target(latents, eps, t)
    text = model.condition([""] * 3).map(lambda tensor: tensor.to(made.precision))
    pairs, prior = text.rows(slice(0, 2)), text.rows(slice(2, 3))
    last = torch.tensor([model.noise.last_timestep], device=model.device)
    noisy, t = noisy.to(model.device, made.precision), t.to(model.device)
    pure = draws.prior.to(model.device, made.precision)
    with torch.no_grad(), adapters_off(model.denoiser):
        reference, prior_reference = model.predict(noisy, t, pairs), model.predict(pure, last, prior)
    policy, prior_policy = model.predict(noisy, t, pairs), model.predict(pure, last, prior)
    target = target.to(model.device)
    known = Reference.of(reference, target, prior_reference)
    return duo_loss(policy, known, target, prior_policy, beta=settings.beta, prior_weight=settings.prior_weight)


@contextlib.contextmanager
def _autocast(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        yield


def _update(made: Setup, loss: torch.Tensor) -> float:
    made.optimizer.step()
    made.optimizer.zero_grad()
    return float(loss.detach())  # waits for the device


def timed(way: Callable[[Setup, int], float], made: Setup, steps: int, warmup: int = 3) -> list[float]:
    """Seconds of each step, after some that do not count."""
    found = []
    for step in range(steps + warmup):
        begin = time.perf_counter()
        way(made, step)
        found.append(time.perf_counter() - begin)
    return found[warmup:]


def peak_gb(device: torch.device) -> float | None:
    """The most memory that was held since the last reset, on a GPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def measure(family: str, device: torch.device, batch: int, steps: int, options: set[str]) -> dict[str, Any]:
    """Our step with some options: median seconds, peak memory, share of the matrix rate."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    made = setup(family, device, batch, options)
    with made.model.denoiser_alone():
        seconds = statistics.median(timed(ours, made, steps))
        count = operations(lambda: ours(made, 0))
    rate = matrix_rate(device, made.precision)
    return {
        "options": sorted(options), "seconds": seconds, "pairs_per_second": batch / seconds, "peak_gb": peak_gb(device),
        "share_of_matrix_rate": count / seconds / rate,
    }  # fmt: skip


def against(family: str, device: torch.device, batch: int, steps: int) -> float:
    """Our time over the authors', step by step in turn on one model."""
    made = setup(family, device, batch, set())
    for way in (ours, theirs):
        timed(way, made, 0)
    pairs = [(timed(ours, made, 1, 0)[0], timed(theirs, made, 1, 0)[0]) for _ in range(steps)]
    return statistics.median(a / b for a, b in pairs)


def images_per_second(family: str, device: torch.device) -> dict[str, float]:
    """Sampling with an adapter beside the weights and in them: 25 steps at guidance 7.5, batches of 4."""
    model = setup(family, device, 4, set()).model
    requests, found = [SampleRequest("a picture", i) for i in range(4)], {}
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(model, Path(folder), {})
        detach(model)
        edit = read_edit(Path(folder))
    for name, one in (("adapter", edit), ("fused", fused(edit))):
        seconds = []
        with one.on(model):
            for _ in range(4):  # the first one does not count
                begin = time.perf_counter()
                model.sample(requests, steps=25, guidance=7.5, batch=4)
                seconds.append(time.perf_counter() - begin)
        found[name] = round(4 / min(seconds[1:]), 3)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", choices=("mini", "sd1", "sdxl", "sd3"))
    parser.add_argument("--batch", type=int, default=4, help="pairs a step")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--options", action="store_true", help="each option alone")
    parser.add_argument("--json", action="store_true", help="one line of figures, last")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and arguments.model != "mini":
        parser.error("models of published size need a GPU; on a CPU: --model mini")
    wanted: list[set[str]] = [set()]
    if arguments.options:
        wanted += [{option} for option in OPTIONS if device.type == "cuda" or option != "fused"]
    print(f"{machine(device.type)}; {arguments.model}, {arguments.batch} pairs a step, {arguments.steps} steps")
    rows = []
    for options in wanted:
        rows.append(measure(arguments.model, device, arguments.batch, arguments.steps, options))
        row = rows[-1]
        memory = f"{row['peak_gb']:.2f} GB" if row["peak_gb"] is not None else "–"
        name = "+".join(row["options"]) or "plain"
        share = f"{row['share_of_matrix_rate']:.0%} of the matrix rate"
        print(f"{name:<16}{row['seconds']:.4f} s a step   {row['pairs_per_second']:.2f} pairs/s   {memory}   {share}")
    ratio = against(arguments.model, device, arguments.batch, arguments.steps)
    speed = images_per_second(arguments.model, device)
    told = ", ".join(f"{name} {value:.2f}" for name, value in speed.items())
    print(f"ours / authors' way: {ratio:.3f}; images a second (25 steps, batch 4): {told}")
    if arguments.json:
        figures = {"model": arguments.model, "device": machine(device.type), "ratio": round(ratio, 4)}
        print(json.dumps(figures | {"images_per_second": speed, "options": rows}))


if __name__ == "__main__":
    main()
