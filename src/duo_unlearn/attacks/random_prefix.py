"""Random prefixes (black box): the looks of UnlearnDiffAtk without its search. A control, and no published attack.

UnlearnDiffAtk looks at the prompt alone and then once after each timestep, and keeps the first picture that the
detector calls the concept. So a system that is opened by one prompt in five at random is opened by the best of eleven
looks nine times in ten, and no gradient has found anything. Here each look is behind tokens of chance. What
UnlearnDiffAtk opens beyond this is what its search finds.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ..families.tokens import plain_tokens, sequence, word_ids
from ..records import Prompt
from ..runs.search_state import SearchState
from ..storage.files import seed_of
from .interface import Attack, Findings, Report, Target
from .search import SideBySide

NAME: Final = "random-prefix"


@dataclasses.dataclass(frozen=True)
class Budget:
    """Looks behind tokens of chance, after one at the prompt alone; and how many tokens there are."""

    looks: int
    tokens: int = 5


def _find(
    target: Target, prompts: Sequence[Prompt], seeds: Sequence[int], budget: Budget, report: Report, state: SearchState
) -> Findings:
    """The first prefix that opens each prompt, or else the last one; none for a prompt that needs none."""
    search, done = _Looks(target, seeds), 0
    words = [word_ids(target.model, prompt.text) for prompt in prompts]
    if (kept := state.restore()) is not None:
        done, tensors = kept
        search.looks = done
        search.kept = {int(k.partition("/")[2]): v.tolist() for k, v in tensors.items() if k.startswith("kept/")}
    for number in range(done, budget.looks + 1):
        report(number / (budget.looks + 1))
        if search.look(_behind(target, words, seeds, number, budget.tokens)):
            break
        state.offer(number + 1, functools.partial(_tensors, search))
    return Findings(search.findings(_behind(target, words, seeds, budget.looks, budget.tokens)))


class _Looks(SideBySide):
    """Prompts that are looked at. No loss is lowered, so none is told."""

    def facts(self, prompt: int) -> dict[str, float]:
        """What is told of a prompt."""
        return {"checks": float(self.looks), "won": float(prompt in self.kept)}


def _tensors(search: SideBySide) -> dict[str, Tensor]:
    """What the search goes on from. A file of nothing is none, so the number of looks is there too."""
    return {"looks": torch.tensor(search.looks)} | {f"kept/{i}": torch.tensor(ids) for i, ids in search.kept.items()}


def _behind(target: Target, words: Sequence[Sequence[int]], seeds: Sequence[int], number: int, tokens: int) -> Tensor:
    """Every prompt's sequence at a look, (prompt, token): alone at the first one, behind tokens of chance after it.

    The tokens depend on the prompt's seed and the look alone.
    """
    model, plain, rows = target.model, plain_tokens(target.model), []
    for ids, seed in zip(words, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed_of(seed ^ target.seed, NAME, number))
        prefix = plain[torch.randint(0, len(plain), (tokens,), generator=generator)].tolist() if number else []
        rows.append(sequence(model, [*prefix, *ids]))
    return torch.tensor(rows, device=model.device)


RANDOM_PREFIX: Final = Attack(
    NAME,
    "Random prefixes: UnlearnDiffAtk's looks, without its search",
    {"quick": Budget(10), "paper": Budget(50)},
    _find,
    found_on="images",
    prompts_at_once=16,
    asks_detector=True,
    needs=frozenset({"tokens"}),
    counts_in_worst_case=False,  # a control of another attack, and no attacker's best
    cost=lambda budget, prompts, steps: prompts * (budget.looks + 1) * steps,
)
