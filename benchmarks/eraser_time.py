"""What the fast erasers take on the mini model, as a share of the seconds that they may take.

Each makes its edit of all pairs with the options that are recommended, in a run of its own, the model and the pairs'
latents being there. Run it when nothing else runs.

python benchmarks/eraser_time.py                          # a row each; the pairs first, which take minutes
python benchmarks/eraser_time.py --run runs/sword         # with that run's pairs
python benchmarks/eraser_time.py --only uce --json        # one of them, and one line of figures, last
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Final

from ratios import ratio, report, seconds

import duo_unlearn as duo
from duo_unlearn.arena.sharing import share_pairs
from duo_unlearn.session import machine

MOST: Final = {"uce": 2.0, "rece": 2.0, "hirm": 60.0, "eraseflow": 60.0, "advunlearn": 600.0}
"""Eraser → the seconds that it may take: closed forms at once, no search in a minute, one in ten."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run of the sword whose pairs are taken")
    parser.add_argument("--only", action="append", choices=MOST)
    parser.add_argument("--json", action="store_true", help="one line of figures, last")
    arguments = parser.parse_args()
    print(machine(), flush=True)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "pairs" if arguments.run is None else arguments.run
        pairs = duo.open_run(source, concept="sword", quiet=True)  # a run of another concept is refused
        duo.make_pairs(pairs)
        for name in arguments.only or MOST:
            run = duo.open_run(Path(place) / name, settings={"eraser": name}, quiet=True)
            share_pairs(pairs.run, run.run, run.settings.edit)
            _ = run.cache  # reads the model, and makes the latents
            found[name] = round(seconds(lambda run=run: duo.train(run)), 1)
            print(f"{name}: {found[name]} s", flush=True)
    rows = [ratio(f"{name}: its seconds ÷ {MOST[name]:g}", [(s, MOST[name])], "≤ 1") for name, s in found.items()]
    report(rows, {"model": "mini", "seconds": found}, as_json=arguments.json)


if __name__ == "__main__":
    main()
