"""`duo arena` over eight systems against the red team of one of them alone, on the mini model.

The run has its pairs and UCE's edit; the other edits are made in the measured time, as `duo arena` makes them. Each way
starts from a copy of the run, in a process of one thread. What systems share is made once: the original's pictures, and
the search on its text encoder. So eight systems take less than eight times one.

python benchmarks/arena_time.py                      # a row; some half an hour
python benchmarks/arena_time.py --count 4            # a quick look
python benchmarks/arena_time.py --json               # and one line of figures, last
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ratios import ratio, report, run_duo, seconds

import duo_unlearn as duo
from duo_unlearn.session import machine

SYSTEMS: Final = (
    "uce", "rece", "hirm", "negative-prompt", "inverted-negative", "safree", "prototypes", "output-filter"
)  # fmt: skip
ATTACKS: Final = ("ring-a-bell", "unlearndiffatk", "image-to-image-empty")
COUNTS: Final = {
    "evaluate.prompts": 4,
    "evaluate.keep_prompts": 8,
    "evaluate.neighbour_prompts": 4,
    "evaluate.inversion_prompts": 0,
}
"""Of what is asked beside the attacks."""


def arena(run: Path, systems: Sequence[str], count: int) -> None:
    """Make and attack some systems of a run, whole, in one process of one thread."""
    words = [word for name in systems for word in ("--system", name)]
    words += [word for name in ATTACKS for word in ("--attack", name)]
    run_duo("arena", str(run), *words, "--preset", "quick", "--count", str(count))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="prompts that are attacked")
    parser.add_argument("--json", action="store_true", help="one line of figures, last")
    arguments = parser.parse_args()
    print(f"{machine()}; mini model, {arguments.count} prompts, quick budgets: {', '.join(ATTACKS)}", flush=True)
    print(f"systems: {', '.join(SYSTEMS)}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        settings = {"eraser": "uce", "pairs.scale": 0.05, "pairs.held_out": 0, **COUNTS}
        made = duo.open_run(Path(place) / "run", settings=settings, quiet=True)
        duo.make_pairs(made)
        duo.train(made)
        one, eight = (shutil.copytree(made.run.folder, Path(place) / name) for name in ("one", "eight"))
        alone = seconds(lambda: arena(one, SYSTEMS[:1], arguments.count))
        together = seconds(lambda: arena(eight, SYSTEMS, arguments.count))
    row = ratio(f"duo arena: {len(SYSTEMS)} systems ÷ one", [(together, alone)], f"≤ {len(SYSTEMS)}")
    report([row], {"count": arguments.count, "model": "mini"}, as_json=arguments.json)


if __name__ == "__main__":
    main()
