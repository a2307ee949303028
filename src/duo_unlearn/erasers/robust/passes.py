"""How many rows go through the denoiser in a training of robust DUO: by them `duo check` tells the time.

Searches between rounds are attacks, and what lies below is another eraser's: neither is counted.
"""

from __future__ import annotations

from ..interface import Passes
from .holding import keeps
from .settings import RobustSettings


def passes_of(options: RobustSettings) -> Passes:
    """The rows of all rounds, on average over what the steps draw."""
    size, shares, search, free = options.train_batch_size, options.captions, options.search, options.free
    rows = size * (3 if options.prior_weight else 2)
    # The reference's and the policy's; each step of a search; what is held, by both models.
    searched = size * (shares.search * search.steps + shares.free * free.steps)
    held = options.hold_batch if options.hold_weight else 0
    forward = 2 * rows + searched + 2 * held
    if search.steps:
        # All searches of a step are held against the original's prediction where one of them imitates it.
        none = (1 - search.imitate) * (1 - shares.search * search.imitate) ** (size - 1)
        forward += size * shares.search * (1 - none)
    sampled = 2 * options.keep_steps * (options.keep + options.neighbours) if keeps(options) else 0
    steps = options.rounds * options.max_train_steps
    return Passes(steps * forward + sampled, steps * (rows + searched + held))
