"""What a soft prompt does to an edit, by noise level: denoising errors on the pairs of a run that was attacked by it.

    duo attack runs/sword --attack soft-prompt --preset quick
    python benchmarks/noise_levels.py runs/sword

A row a timestep: on unsafe latents under the pairs' own prompts, the error of the original and of the system; under the
soft prompt that the attack found, that of the system and of the original without its edits; then the last two on safe
latents. Where the system's error is the original's, its edits do nothing there. The pairs are those of training, so it
explains and measures no defence. Guards are no part of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

import duo_unlearn as duo
from duo_unlearn.attacks.tensors import conditioning_of
from duo_unlearn.edits.interface import edits_off
from duo_unlearn.families.denoising import predict_noised
from duo_unlearn.families.interface import Conditioning
from duo_unlearn.session import Session, machine
from duo_unlearn.storage.files import read_tensors

LEVELS: Final = (50, 150, 250, 350, 450, 550, 650, 740, 800, 850, 900, 950)
HEAD: Final = (
    "t", "original, asked", "system, asked", "system, soft", "original, soft", "safe: system, soft", "original, soft"
)  # fmt: skip


def error(run: Session, mean: Tensor, level: int, conditioning: Conditioning) -> float:
    """The mean of (target − prediction)² of latents, (picture, c, h, w), noised to a timestep by fixed noise."""
    t, noise = torch.full((len(mean),), level), run.model.noise
    eps = torch.randn(mean.shape, generator=torch.Generator().manual_seed(level))
    predicted = predict_noised(run.model, noise.add_noise(mean, eps, t), t, conditioning)
    return float((predicted.float().cpu() - noise.target(mean, eps, t)).square().mean())


def rows(run: Session, name: str, count: int) -> list[list[float]]:
    """The table's numbers. name: a system of the run; count: how many pairs."""
    found_there = sorted((run.run.attempts / name / "direct" / "soft-prompt.quick").glob("found-*.safetensors"))
    if not found_there:
        sys.exit(f"no soft prompt was found on {name}: duo attack {run.run.folder} --attack soft-prompt --preset quick")
    tensors, _ = read_tensors(found_there[0])
    soft = conditioning_of(tensors, "soft").repeat(count)
    unsafe, safe = (side.mean[:count].cpu() for side in (run.cache.unsafe, run.cache.safe))
    prompts = [pair.unsafe_prompt or "" for pair in run.pairs[:count]]
    system, found = run.system(name), []
    with system.on(run.model, run.guard_context(system)), torch.no_grad():
        asked = run.model.condition(prompts)
        with edits_off(run.model):
            first = run.model.condition(prompts)
        for t in LEVELS:
            edited = [error(run, *what) for what in ((unsafe, t, asked), (unsafe, t, soft), (safe, t, soft))]
            with edits_off(run.model):
                plain = [error(run, *what) for what in ((unsafe, t, first), (unsafe, t, soft), (safe, t, soft))]
            found.append([t, plain[0], edited[0], edited[1], plain[1], edited[2], plain[2]])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--system", help="the run's own when not given")
    parser.add_argument("--count", type=int, default=32, help="pairs")
    arguments = parser.parse_args()
    run = duo.open_run(arguments.run, quiet=True)
    name = arguments.system or run.systems()[1].name
    count = min(arguments.count, len(run.pairs))
    print(f"{machine()}; {name} of {arguments.run}, {count} pairs, mean squared error\n")
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for level, *errors in rows(run, name, count):
        print(f"| {level:g} | {' | '.join(f'{one:.3f}' for one in errors)} |", flush=True)


if __name__ == "__main__":
    main()
