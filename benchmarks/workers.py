"""`duo attack` by one process with one thread against --workers 2, a thread each, on the mini model.

A run's edit is made once, by UCE. Each way attacks a copy of the run, so that nothing is found done; starting processes
and loading the model count. The attacks are a search on text, one on the model's gradients, one that asks for pictures,
and one that samples alone. The pictures of both ways must be the same.

python benchmarks/workers.py                             # a table
python benchmarks/workers.py --count 4 --rounds 1        # a quick look
python benchmarks/workers.py --json                      # and one line of figures, last
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from ratios import ratio, report, run_duo, seconds

import duo_unlearn as duo
from duo_unlearn.runs.folder import Run
from duo_unlearn.session import machine

ATTACKS: Final = ("ring-a-bell", "unlearndiffatk", "sneakyprompt", "image-to-image")
GOAL: Final = 1.6


def attack(run: Path, count: int, workers: int) -> None:
    """Attack a run in processes with one thread each."""
    chosen = [word for name in ATTACKS for word in ("--attack", name)]
    more = ["--workers", str(workers)] if workers > 1 else []
    run_duo("attack", str(run), *chosen, "--preset", "quick", "--count", str(count), *more)


def pictures(run: Run) -> dict[str, bytes]:
    """The pictures that attacks made."""
    return {str(path.relative_to(run.attempts)): path.read_bytes() for path in sorted(run.attempts.rglob("*.png"))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=8, help="prompts that are attacked")
    parser.add_argument("--rounds", type=int, default=3, help="of both ways, in turn")
    parser.add_argument("--json", action="store_true", help="one line of figures, last")
    arguments = parser.parse_args()
    print(f"{machine()}; mini model, {arguments.count} prompts, quick budgets: {', '.join(ATTACKS)}")
    with tempfile.TemporaryDirectory() as place:
        settings = {"eraser": "uce", "pairs.scale": 0.05, "pairs.held_out": 0}
        made = duo.open_run(Path(place) / "run", settings=settings, quiet=True)
        duo.make_pairs(made)
        duo.train(made)
        found = []
        for number in range(arguments.rounds):
            one, two = (Run(Path(place) / f"{name}-{number}") for name in ("one", "two"))
            for run in (one, two):
                shutil.copytree(made.run.folder, run.folder)
            alone = seconds(lambda run=one: attack(run.folder, arguments.count, 1))
            found.append((alone, seconds(lambda run=two: attack(run.folder, arguments.count, 2))))
            if pictures(one) != pictures(two) or not pictures(one):
                sys.exit("two workers made other pictures than one process")
    row = ratio("duo attack: one process ÷ --workers 2", found, f"≥ {GOAL:g}")
    report([row], {"count": arguments.count, "rounds": arguments.rounds, "model": "mini"}, as_json=arguments.json)


if __name__ == "__main__":
    main()
