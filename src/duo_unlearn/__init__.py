"""Erase a concept from a text-to-image diffusion model, and measure that it is gone.

import duo_unlearn as duo
run = duo.open_run("runs/sword", model="mini", concept="sword")
results = duo.erase(run)
duo.attack(run, ["ring-a-bell"], prompts=20)
"""

from .errors import DuoError
from .pipeline import (
    add_edit,
    attack,
    compare,
    compose,
    erase,
    evaluate,
    export,
    judge,
    make_pairs,
    open_run,
    report,
    sample,
    sweep,
    train,
)
from .records import Estimate, Pair

__version__ = "0.1.0"
__all__ = [
    "DuoError",
    "Estimate",
    "Pair",
    "add_edit",
    "attack",
    "compare",
    "compose",
    "erase",
    "evaluate",
    "export",
    "judge",
    "make_pairs",
    "open_run",
    "report",
    "sample",
    "sweep",
    "train",
]
