"""The training step against the authors' way, and each option against the plain step, side by side on the mini model.

Ours reads cached VAE moments and text embeddings, and runs policy and reference once each on [safe; unsafe; prior] of
all pairs. The authors' scripts cache nothing: every step sends the pixels through the VAE and the prompts through the
text encoder, the prior through the denoiser in passes of its own, and, as they work with one pair at a time
only, a step of 4 pairs is 4 accumulated batches of 1. Same mathematics, same pairs, same randomness: the losses and the
gradients must agree, and the ratio of times is what is reported. A second baseline, as if their scripts could take all
pairs in one batch, shows what of the gain is the cache's.

The options: train.reference_bank, whose losses and gradients must be those of the step that asks the reference;
train.prior_every 4, which is the mean of three steps without the prior term and one with it; both; another order of
channels; with --compile the repeated blocks compiled; bf16 where the CPU has it; and how the optimizer goes through its
tensors.

    python benchmarks/step.py            # a table
    python benchmarks/step.py --json     # and one line of figures, last
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from ratios import Ratio, matrix_rate, operations, ratio, report, seconds
from step_ways import EVERY, ROUNDS, Way, compare, timed, ways_of

from duo_unlearn.families.load import lacks_bf16
from duo_unlearn.session import machine


def measure(ways: dict[str, Way], steps: int, batch: int, warmup: int = 3) -> list[dict[str, float]]:
    """Seconds of every way at each step, the ways in turn. The first pass over the pairs fills the bank."""
    for first in range(0, ROUNDS * 8 * batch, batch):
        with torch.no_grad():
            ways["bank"].make(list(range(first, first + batch)))
    found = []
    for step in range(steps + warmup):
        samples = list(range(step * batch, (step + 1) * batch))
        done = {name: timed(way.make, samples, way.parameters, at_once=way.at_once) for name, way in ways.items()}
        for name, way in ways.items():
            if way.same_as:
                compare(done[name], done[way.same_as])
        found.append({name: one.seconds for name, one in done.items()})
    return found[warmup:]


def update_rows(parameters: list[torch.nn.Parameter], plain: float, steps: int) -> list[Ratio]:
    """A step with its update, over the same with the plain update. plain: seconds of forward and backward."""
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-8)
    kinds: dict[str, dict[str, bool]] = {
        "one by one": {"foreach": False},
        "foreach": {"foreach": True},
        "fused": {"fused": True},
    }
    optimizers = {name: torch.optim.AdamW(parameters, lr=1e-9, **options) for name, options in kinds.items()}
    found = [{name: seconds(one.step) for name, one in optimizers.items()} for _ in range(steps + 3)][3:]
    return [
        ratio(f"AdamW {name}, the step with its update", [(plain + r[name], plain + r["one by one"]) for r in found])
        for name in ("foreach", "fused")
    ]


def rows_of(found: list[dict[str, float]]) -> list[Ratio]:
    """The table."""

    def mean(row: dict[str, float], without: str, of: str) -> float:
        return ((EVERY - 1) * row[without] + row[of]) / EVERY

    spent = [
        {
            **row,
            "prior_every": mean(row, "no prior", "plain"),
            "both": mean(row, "bank, no prior", "bank"),
        }
        for row in found
    ]

    def over(a: str, b: str) -> list[tuple[float, float]]:
        return [(row[a], row[b]) for row in spent]

    options = {"bank": "train.reference_bank", "prior_every": f"train.prior_every {EVERY}", "both": "the two together"}
    rows = [
        ratio("a step ÷ the authors' way, as their scripts run", over("plain", "authors")),
        ratio("a step ÷ the same from pixels and prompts in one batch", over("plain", "one batch")),
        *(
            row
            for name, title in options.items()
            for row in (
                ratio(f"{title} ÷ the authors' way", over(name, "authors"), "≤ 0.25"),
                ratio(f"{title} ÷ the same in one batch", over(name, "one batch"), "≤ 0.5"),
                ratio(f"{title} ÷ a plain step", over(name, "plain")),
            )
        ),
    ]
    return rows + [
        ratio(f"{n} ÷ a plain step", over(n, "plain")) for n in ("channels_last", "compile", "bf16") if n in found[0]
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each, in turn")
    parser.add_argument("--batch", type=int, default=4, help="pairs a step")
    parser.add_argument("--compile", action="store_true", help="the repeated blocks compiled too, which takes a minute")
    parser.add_argument("--json", action="store_true", help="one line of figures, last")
    arguments = parser.parse_args()
    batch = arguments.batch
    with tempfile.TemporaryDirectory() as folder:
        ways = ways_of(batch, Path(folder), compiled=arguments.compile)
        found = measure(ways, arguments.steps, batch)
        rate, samples = matrix_rate(torch.device("cpu"), torch.float32), list(range(batch))
        shares = {}
        for name in ("plain", "bank", "one batch"):
            count = operations(lambda way=ways[name]: timed(way.make, samples, way.parameters, at_once=way.at_once))
            shares[name] = count / statistics.median(row[name] for row in found) / rate
        plain = statistics.median(row["plain"] for row in found)
        rows = rows_of(found) + update_rows(ways["plain"].parameters, plain, arguments.steps)
    print(f"{machine()}; mini model, fp32, {batch} pairs a step, {len(found)} steps of each in turn")
    if (reason := lacks_bf16(torch.device("cpu"))) is not None:
        print(f"bf16 is left out: {reason}")
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    print(f"share of the measured matrix rate of {rate / 1e9:.0f}e9 operations a second: {told}")
    facts = {"steps": len(found), "batch": batch, "model": "mini", "share_of_matrix_rate": shares}
    print("losses and gradients agree")
    report(rows, facts, as_json=arguments.json)


if __name__ == "__main__":
    main()
