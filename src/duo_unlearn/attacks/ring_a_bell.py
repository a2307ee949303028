"""Ring-A-Bell (black box): a genetic search for tokens whose embedding is that of the prompt moved towards the concept.

Tsai et al. 2024. The concept vector is the mean difference of the text encoder's output between prompts with the
concept and the same without; the denoiser is never asked. Unlike the published scripts it never loses the best one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor

from ..families.interface import Model, Tokens
from ..families.tokens import plain_tokens, sequence, text_of
from ..records import Prompt
from ..runs.search_state import NO_STATE, SearchState
from .interface import Attack, Finding, Findings, Report, Target
from .search import concept_vector

CROSSOVER, MUTATION = 0.5, 0.25


@dataclasses.dataclass(frozen=True)
class Budget:
    """Size of the population, generations, tokens of a prompt, and η, how far the target is moved."""

    population: int
    generations: int
    tokens: int = 16
    eta: float = 3.0

    def __post_init__(self) -> None:
        """Fail for a population without two halves, and for prompts that no crossing can cut."""
        if self.population < 2 or self.tokens < 2:
            raise ValueError("population and tokens must be 2 or more")


def _find(
    target: Target, prompts: Sequence[Prompt], seeds: Sequence[int], budget: Budget, report: Report, state: SearchState
) -> Findings:
    """The fittest tokens for each prompt, on the original text encoder."""
    made = []
    with target.original(), torch.no_grad():
        concept = concept_vector(target)
        for done, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):

            def within(share: float, done: int = done) -> None:
                report((done + share) / len(prompts))

            wanted = target.model.condition([prompt.text]).text[0] + budget.eta * concept
            ids, distance = evolve(
                target.model, wanted, population=budget.population, generations=budget.generations,
                tokens=budget.tokens, seed=seed, report=within, state=state,
            )  # fmt: skip
            facts = {"distance": distance}
            made.append(Finding(text_of(target.model, ids), sequence(target.model, ids), facts=facts))
    return Findings(made)


def distances(model: Model, target: Tensor, candidates: Tensor) -> Tensor:
    """‖target − E(tokens)‖² of each candidate, (candidate,); candidates: token ids, (candidate, token)."""
    whole = torch.tensor([sequence(model, ids) for ids in candidates.tolist()])
    return (model.condition(Tokens(whole)).text.float() - target.float()).square().sum(dim=(1, 2)).cpu()


class _Fitness:
    """Distances of candidates, each measured once: seven in ten children of a search are copies of one before."""

    def __init__(self, model: Model, target: Tensor) -> None:
        self._model, self._target = model, target
        self._known: dict[tuple[int, ...], float] = {}

    def __call__(self, candidates: Tensor) -> Tensor:
        rows = [tuple(ids) for ids in candidates.tolist()]
        if new := list(dict.fromkeys(row for row in rows if row not in self._known)):
            found = distances(self._model, self._target, torch.tensor(new))
            self._known.update(zip(new, found.tolist(), strict=True))
        return torch.tensor([self._known[row] for row in rows])


def evolve(
    model: Model,
    target: Tensor,
    *,
    population: int,
    generations: int,
    tokens: int,
    seed: int,
    report: Report = lambda _share: None,
    state: SearchState = NO_STATE,
) -> tuple[list[int], float]:
    """The fittest token ids after some generations, and their distance.

    Each generation keeps the better half, and fills up with children of it: one-point crossover for half of them, one
    token changed in a quarter.
    """
    generator = torch.Generator().manual_seed(seed)
    plain = plain_tokens(model)

    def random_tokens(*shape: int) -> Tensor:
        return plain[torch.randint(0, len(plain), shape, generator=generator)]

    half, start, fitness_of = population // 2, 0, _Fitness(model, target)
    if (kept_state := state.restore()) is not None:
        start, tensors = kept_state
        alive, fitness = tensors["alive"], tensors["fitness"]
        generator.set_state(tensors["generator"])
    else:
        alive = random_tokens(population, tokens)
        fitness = fitness_of(alive)

    def tensors_of(alive: Tensor, fitness: Tensor) -> dict[str, Tensor]:
        return {"alive": alive, "fitness": fitness, "generator": generator.get_state()}

    for generation in range(start, generations):
        report(generation / generations)
        order = fitness.argsort()[:half]
        parents, kept = alive[order], fitness[order]
        pairs = torch.randint(0, half, (population - half, 2), generator=generator)
        cut = torch.randint(1, tokens, (population - half, 1), generator=generator)
        crossed = torch.where(torch.arange(tokens) < cut, parents[pairs[:, 0]], parents[pairs[:, 1]])
        chosen = torch.rand(population - half, 1, generator=generator) < CROSSOVER
        children = torch.where(chosen, crossed, parents[pairs[:, 0]])
        mutated = torch.rand(population - half, generator=generator) < MUTATION
        place = torch.randint(0, tokens, (population - half,), generator=generator)
        new = random_tokens(population - half)
        rows = mutated.nonzero().flatten()
        children[rows, place[rows]] = new[rows]
        alive, fitness = torch.cat([parents, children]), torch.cat([kept, fitness_of(children)])
        state.offer(generation + 1, partial(tensors_of, alive, fitness))
    best = int(fitness.argmin())
    return [int(token) for token in alive[best]], float(fitness[best])


RING_A_BELL: Final = Attack(
    "ring-a-bell",
    "Ring-A-Bell",
    {"quick": Budget(64, 60), "paper": Budget(200, 3000)},
    _find,
    found_on="text",
    prompts_at_once=1,
    needs=frozenset({"tokens", "pairs", "words"}),
    # On the mini model a pass of the text encoder is about a twentieth of one of the denoiser.
    cost=lambda budget, prompts, _steps: 0.05 * prompts * budget.population * budget.generations,
)
