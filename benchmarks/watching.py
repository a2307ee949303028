"""What it costs to watch a training: previews and held-out pairs as a share of a 500-step training of the mini model.

Steps, a row of previews and a look at the held-out pairs are timed in turn, so that all see the same machine. The
share is that of the defaults: a row every 125 steps, a look every 50, on a tenth of the concept's pairs.

    python benchmarks/watching.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from step_ways import cached, drawn_pairs

import duo_unlearn as duo
from duo_unlearn.arena.held_out import watch_of
from duo_unlearn.arena.plans import evaluated_texts
from duo_unlearn.edits.lora import attach
from duo_unlearn.erasers.duo.held_out import HeldOut
from duo_unlearn.erasers.duo.step import make_batch, terms_of
from duo_unlearn.erasers.latents import Cache
from duo_unlearn.erasers.previews import Previews
from duo_unlearn.families.interface import Model
from duo_unlearn.session import machine

STEPS: Final = 500
PAIRS: Final = 192
ROUNDS: Final = 5
STEPS_A_ROUND: Final = 8


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def captioned(model: Model, count: int) -> Cache:
    """Drawn pairs, encoded, all under one caption."""
    text = model.condition(["a red knight with a sword"] * count)
    return cached(model, *drawn_pairs(count))._replace(safe_text=text, unsafe_text=text)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = duo.open_run(Path(folder) / "run", concept="sword", quiet=True)
        model, settings, watch = run.model, run.settings.train, watch_of(run, evaluated_texts(run))
        assert watch is not None
        cache = captioned(model, 16)
        apart = captioned(model, round(PAIRS * run.settings.pairs.held_out))
        parameters = attach(model, rank=settings.rank, seed=0, targets=settings.adapter_targets)
        optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate)
        looks = HeldOut(model, apart, settings, watch.seed)
        previews = Previews(model, watch, Path(folder) / "previews", settings.preview_steps)
        previews.begin()
        looks.measure()  # the first one also asks the reference

        def steps(first: int) -> None:
            for step in range(first, first + STEPS_A_ROUND):
                size = settings.train_batch_size
                batch = make_batch(cache, model, list(range(step * size, (step + 1) * size)), settings, 0)
                terms_of(model, None, batch, settings).loss.backward()
                optimizer.step()
                optimizer.zero_grad()

        steps(0)
        rows, held_out = [], []
        for i in range(ROUNDS):
            a_step = seconds(lambda i=i: steps(i * STEPS_A_ROUND)) / STEPS_A_ROUND
            rows.append(seconds(lambda: previews.after(settings.preview_steps, last=False)) / a_step)
            held_out.append(seconds(looks.measure) / a_step)
    print(f"{machine()}, {torch.get_num_threads()} threads, {ROUNDS} rounds; the original's row is one more")
    for name, found, count in (
        ("previews", rows, STEPS // settings.preview_steps + 1),
        ("held-out pairs", held_out, STEPS // settings.checkpointing_steps + 1),
    ):
        shares = [count * value / STEPS for value in found]
        print(
            f"{name}: one takes {statistics.median(found):.2f} steps, {count} of them {statistics.median(shares):.1%} "
            f"({min(shares):.1%} to {max(shares):.1%}) of {STEPS} steps"
        )


if __name__ == "__main__":
    main()
