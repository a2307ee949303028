"""What token searches share: the concept's direction, and prompts that are attacked side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from PIL import Image
from torch import Tensor

from ..families.interface import SampleRequest, Tokens
from ..families.tokens import text_of
from ..runs.search_state import SearchState
from ..storage.optimizer_state import optimizer_tensors, restore_optimizer
from .interface import Finding, Target

UNKNOWN: Final = -1.0
"""What a state holds in place of a loss that is not known: none is below 0, and a file holds no nan."""


@torch.no_grad()
def concept_vector(target: Target) -> Tensor:
    """Mean of E(unsafe) − E(safe) over prompts that differ in the concept, (token, width).

    A pair without its two prompts says nothing of it.
    """
    pairs = [pair for pair in target.contrast() if all(pair)]
    unsafe = target.model.condition([pair[0] for pair in pairs]).text
    safe = target.model.condition([pair[1] for pair in pairs]).text
    return (unsafe - safe).mean(dim=0)


def each_prompt(ids: Tensor) -> list[Tokens]:
    """Token sequences, (prompt, token), one prompt each."""
    return [Tokens(row) for row in ids.unsqueeze(1)]


class SideBySide:
    """Which token sequence is kept for each of some prompts. A prompt has won by the first that shows the concept.

    kept: sequences by prompt. loss: each prompt's last one, nan before. looks: how often images were sampled.
    """

    def __init__(self, target: Target, seeds: Sequence[int]) -> None:
        self.target, self.seeds = target, seeds
        self.kept: dict[int, list[int]] = {}
        self.loss = torch.full((len(seeds),), float("nan"))
        self.looks = 0

    def open(self) -> list[int]:
        """The prompts that are searched on: those that have not won."""
        return [i for i in range(len(self.seeds)) if i not in self.kept]

    def sample(self, whole: Tensor) -> list[Image.Image | None]:
        """The images of the open prompts under their sequences of `whole`, (prompt, token)."""
        open_ = self.open()
        there = whole[open_]
        with torch.no_grad():
            text = self.target.model.condition(Tokens(there))
        requests = [
            SampleRequest(words, self.seeds[i], conditioning=text.rows(slice(k, k + 1)))
            for k, (i, words) in enumerate(zip(open_, each_prompt(there), strict=True))
        ]
        self.looks += 1
        return self.target.sample(requests)

    def look(self, whole: Tensor) -> bool:
        """Ask the detector about the open prompts' images under `whole`, (prompt, token); True when all have won."""
        for i, seen in zip(self.open(), self.target.detect(self.sample(whole)), strict=True):
            if seen:
                self.kept[i] = whole[i].tolist()
        return not self.open()

    def facts(self, prompt: int) -> dict[str, float]:
        """What the search reports of a prompt."""
        return {**self.last_loss(prompt), "checks": float(self.looks), "won": float(prompt in self.kept)}

    def last_loss(self, prompt: int) -> dict[str, float]:
        """The loss of a prompt, by its name; nothing where it won before the first step: JSON has no nan."""
        loss = float(self.loss[prompt])
        return {} if math.isnan(loss) else {"loss": loss}

    def findings(self, whole: Tensor) -> list[Finding]:
        """Each prompt's kept sequence, or else that of `whole`, (prompt, token)."""
        end, made = self.target.model.pipe.tokenizer.eos_token_id, []
        for i, last in enumerate(whole.tolist()):
            ids = self.kept.get(i, last)
            made.append(Finding(text_of(self.target.model, ids[1 : ids.index(end, 1)]), ids, facts=self.facts(i)))
        return made

    def tensors(
        self, searched: Tensor, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What a search's state holds: what is searched, its optimizer and randomness, what is kept, losses, looks."""
        kept = {f"kept/{i}": torch.tensor(ids) for i, ids in self.kept.items()}
        steps = {f"optimizer/{name}": value for name, value in optimizer_tensors(optimizer).items()}
        # A prompt that won before the first step has no loss.
        own = {
            "loss": self.loss.nan_to_num(nan=UNKNOWN),
            "looks": torch.tensor(self.looks),
            "generator": generator.get_state(),
        }
        return {**kept, **steps, **own, "searched": searched.detach()}

    def restored(
        self, state: SearchState, searched: Tensor, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> int:
        """Put back what `tensors` gave, if a state holds it; gives the step to go on with, else 0."""
        found = state.restore()
        if found is None:
            return 0
        step, tensors = found
        self.kept = {int(k.partition("/")[2]): v.tolist() for k, v in tensors.items() if k.startswith("kept/")}
        loss = tensors["loss"]
        self.loss, self.looks = loss.masked_fill(loss == UNKNOWN, float("nan")), int(tensors["looks"])
        searched.data = tensors["searched"].to(searched.device)
        generator.set_state(tensors["generator"])
        steps = {k.partition("/")[2]: v for k, v in tensors.items() if k.startswith("optimizer/")}
        restore_optimizer(optimizer, steps)
        return step
