"""Erase a concept from a text-to-image diffusion model, and measure that it is gone.

import duo_unlearn as duo
estimates = duo.erase(model="mini", concept="sword", output="runs/sword")
"""

from .api import erase, evaluate, make_pairs, train
from .errors import DuoError
from .records import Estimate, Pair

__version__ = "0.1.0"
__all__ = ["DuoError", "Estimate", "Pair", "erase", "evaluate", "make_pairs", "train"]
