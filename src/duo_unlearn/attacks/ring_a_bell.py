"""Ring-A-Bell (black box): a genetic search for tokens whose embedding is that of the prompt moved towards the concept.

Tsai et al. 2024. The concept vector is the mean difference of the text encoder's output between prompts with the
concept and the same without; the denoiser is never asked. Unlike the published scripts it never loses the best one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ..families.interface import Model
from ..families.tokens import encode_ids, sequence, text_of, why_no_tokens
from ..records import Prompt
from .interface import Artifact, AttackDefaults, Found, Preset, Report, Subject

PRESETS: Final[dict[Preset, dict[str, float]]] = {
    "quick": {"population": 64, "generations": 60, "tokens": 16, "eta": 3.0},
    "paper": {"population": 200, "generations": 3000, "tokens": 16, "eta": 3.0},
}
CROSSOVER, MUTATION = 0.5, 0.25


class RingABell(AttackDefaults):
    """Searches on the text encoder alone, so what is found serves every model that has it."""

    name, title, shared = "ring-a-bell", "Ring-A-Bell", True

    def why_not(self, model: Model) -> str | None:
        """It writes CLIP tokens."""
        return why_no_tokens(model)

    def budget(self, preset: Preset) -> dict[str, float]:
        """Population, generations, tokens, η."""
        return PRESETS[preset]

    def chunk(self, _preset: Preset) -> int:
        """One prompt a search."""
        return 1

    def find(
        self, subject: Subject, prompts: Sequence[Prompt], seeds: Sequence[int], preset: Preset, report: Report
    ) -> Found:
        """The fittest tokens for each prompt."""
        budget = self.budget(preset)
        concept = concept_vector(subject)
        made = []
        for done, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):

            def within(share: float, done: int = done) -> None:
                report((done + share) / len(prompts))

            with torch.no_grad():
                target = subject.model.encode_prompts([prompt.text]).text[0] + budget["eta"] * concept
                ids, distance = evolve(
                    subject.model, target, population=int(budget["population"]),
                    generations=int(budget["generations"]), tokens=int(budget["tokens"]), seed=seed, report=within,
                )  # fmt: skip
            facts = {"distance": distance}
            made.append(Artifact(text_of(subject.model, ids), sequence(subject.model, ids), facts=facts))
        return Found(made)


@torch.no_grad()
def concept_vector(subject: Subject) -> Tensor:
    """Mean of E(unsafe) − E(safe) over prompts that differ in the concept, (token, width)."""
    unsafe = subject.model.encode_prompts([pair[0] for pair in subject.contrast]).text
    safe = subject.model.encode_prompts([pair[1] for pair in subject.contrast]).text
    return (unsafe - safe).mean(dim=0)


def distances(model: Model, target: Tensor, candidates: Tensor) -> Tensor:
    """‖target − E(tokens)‖² of each candidate, (candidate,); candidates: token ids, (candidate, token)."""
    whole = torch.tensor([sequence(model, ids) for ids in candidates.tolist()])
    return (encode_ids(model, whole).text.float() - target.float()).square().sum(dim=(1, 2)).cpu()


def evolve(
    model: Model,
    target: Tensor,
    *,
    population: int,
    generations: int,
    tokens: int,
    seed: int,
    report: Report = lambda _share: None,
) -> tuple[list[int], float]:
    """The fittest token ids after some generations, and their distance.

    Each generation keeps the better half, and fills up with children of it: one-point crossover for half of them, one
    token changed in a quarter. Only new ones are encoded.
    """
    generator = torch.Generator().manual_seed(seed)
    plain = plain_tokens(model)

    def random_tokens(*shape: int) -> Tensor:
        return plain[torch.randint(0, len(plain), shape, generator=generator)]

    alive = random_tokens(population, tokens)
    fitness = distances(model, target, alive)
    half = population // 2
    for generation in range(generations):
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
        alive, fitness = torch.cat([parents, children]), torch.cat([kept, distances(model, target, children)])
    best = int(fitness.argmin())
    return [int(token) for token in alive[best]], float(fitness[best])


def plain_tokens(model: Model) -> Tensor:
    """Token ids that a search may use: all but start, end and padding."""
    tokenizer = model.pipe.tokenizer
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return torch.tensor(
        [i for i in range(model.pipe.text_encoder.get_input_embeddings().num_embeddings) if i not in special]
    )
