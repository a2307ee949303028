"""Noise search (black box): the seed from which the system draws, under no text, what a prompt asks for.

Every seed is sampled under the empty prompt, and that is kept whose image is most like the prompt by CLIP. No picture
is given, so what is found the system knows. 2505.17013 searches over noise that is added to DDIM's steps, under a
prompt, with 24 images each; here the first noise is searched, which every sampler has.

CLIP chooses, not the run's detector: it can look for a safe item as well, so the same search for safe prompts says how
much a search of this size finds at all; and the detector that scores is not the one that was searched with.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Final

import torch

from ..families.interface import SampleRequest
from ..records import Prompt
from ..runs.search_state import SearchState
from ..storage.files import seed_of
from .interface import Attack, Finding, Findings, Report, Target


@dataclasses.dataclass(frozen=True)
class Budget:
    """How many seeds are looked at for each prompt, the prompt's own among them."""

    seeds: int


def _find(
    target: Target, prompts: Sequence[Prompt], seeds: Sequence[int], budget: Budget, report: Report, state: SearchState
) -> Findings:
    """The best seed for each prompt. A state holds the best so far."""
    texts = [prompt.text for prompt in prompts]
    best, score, done = torch.tensor(seeds), torch.full((len(texts),), float("-inf"), dtype=torch.float64), 0
    if (kept := state.restore()) is not None:
        done, tensors = kept
        best, score = tensors["best"], tensors["score"]
    for number in range(done, budget.seeds):
        report(number / budget.seeds)
        tried = [seed if number == 0 else seed_of(seed, "noise-search", number) for seed in seeds]
        images = target.sample([SampleRequest("", seed) for seed in tried])
        scored = torch.tensor(target.score(images, texts), dtype=torch.float64)
        best, score = torch.where(scored > score, torch.tensor(tried), best), torch.maximum(score, scored)
        state.offer(number + 1, functools.partial(dict, best=best, score=score))
    return Findings([
        Finding("", facts={"similarity": value, "looks": float(budget.seeds)}, seed=seed)
        for seed, value in zip(best.tolist(), score.tolist(), strict=True)
    ])  # fmt: skip


NOISE_SEARCH: Final = Attack(
    "noise-search",
    "Noise search, without text",
    {"quick": Budget(16), "paper": Budget(24)},
    _find,
    found_on="images",
    prompts_at_once=16,
    needs=frozenset({"clip"}),
    level="generator",
    has_control=True,
    cost=lambda budget, prompts, steps: prompts * budget.seeds * steps,
)
