"""The mini model's red team: original and erased at each β under every attack → docs/results.json, .md and pictures.

python benchmarks/results.py                # hours on 2 cores; what is done is skipped, so it goes on after a kill
python benchmarks/results.py --beta 9       # a part of it, e.g. beside another process
"""

from __future__ import annotations

import argparse
from pathlib import Path

from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.session import Session
from duo_unlearn.settings import resolve_settings
from duo_unlearn.sweeping import BETAS, Assault, sweep

GRID = (9.0, 30.0, *BETAS)
"""The mini model's β, one between, and the paper's."""
ASSAULTS = (
    Assault([name for name in ATTACKS if name != "direct"], "quick", 20),
    Assault(["concept-inversion", "sneakyprompt", "unlearndiffatk", "p4d"], "paper", 16),
)
EVALUATE = {"prompts": 100, "keep_prompts": 100, "neighbour_prompts": 50, "inversion_prompts": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/results"))
    parser.add_argument("--beta", type=float, action="append")
    given = parser.parse_args()
    session = Session(resolve_settings({"concept": "sword", "output": str(given.run), "evaluate": EVALUATE}))
    sweep(session, "beta", given.beta or list(GRID), assaults=ASSAULTS, say=print)


if __name__ == "__main__":
    main()
