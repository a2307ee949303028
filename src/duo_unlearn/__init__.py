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
    erase,
    evaluate,
    judge,
    make_pairs,
    open_run,
    report,
    status,
    train,
)
from .records import Estimate, Pair
from .several import compare, compose, fill_bank, read_ledger, reproduce, run_arena, slice_run, sum_of_rest, sweep
from .shipping import export, sample, verify

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
    "fill_bank",
    "judge",
    "make_pairs",
    "open_run",
    "read_ledger",
    "report",
    "reproduce",
    "run_arena",
    "sample",
    "slice_run",
    "status",
    "sum_of_rest",
    "sweep",
    "train",
    "verify",
]
