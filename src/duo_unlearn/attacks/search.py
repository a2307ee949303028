"""What token searches share: the concept's direction, and prompts that are attacked side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..families.interface import SampleRequest, Tokens
from ..families.tokens import text_of
from ..runs.search_state import SearchState
from ..storage.files import optimizer_tensors, restore_optimizer
from .interface import Finding, Target


@torch.no_grad()
def concept_vector(target: Target) -> Tensor:
    """Mean of E(unsafe) − E(safe) over prompts that differ in the concept, (token, width)."""
    pairs = target.contrast()
    unsafe = target.model.condition([pair[0] for pair in pairs]).text
    safe = target.model.condition([pair[1] for pair in pairs]).text
    return (unsafe - safe).mean(dim=0)


class SideBySide:
    """Which of some prompts have won, and by which token sequence. loss: each prompt's last one, nan before."""

    def __init__(self, target: Target, seeds: Sequence[int]) -> None:
        self.target, self.seeds = target, seeds
        self.won: dict[int, list[int]] = {}
        self.loss = torch.full((len(seeds),), float("nan"))
        self.looks = 0

    def open(self) -> list[int]:
        """The prompts that have not won."""
        return [i for i in range(len(self.seeds)) if i not in self.won]

    def look(self, whole: Tensor) -> bool:
        """Sample what has not won yet under its sequence of `whole`, (prompt, token); True when all have won."""
        open_ = self.open()
        with torch.no_grad():
            text = self.target.model.condition(Tokens(whole[open_]))
        requests = [
            SampleRequest(Tokens(whole[i : i + 1]), self.seeds[i], conditioning=text.rows(slice(k, k + 1)))
            for k, i in enumerate(open_)
        ]
        self.looks += 1
        for i, seen in zip(open_, self.target.detect(self.target.sample(requests)), strict=True):
            if seen:
                self.won[i] = whole[i].tolist()
        return not self.open()

    def findings(self, whole: Tensor, lengths: Sequence[int]) -> list[Finding]:
        """The sequence that won, or else that of `whole`. lengths: each prompt's tokens, without start and end."""
        made = []
        for i, length in enumerate(lengths):
            ids = self.won.get(i, whole[i].tolist())
            facts = {"loss": float(self.loss[i]), "checks": float(self.looks), "won": float(i in self.won)}
            made.append(Finding(text_of(self.target.model, ids[1:-1][:length]), ids, facts=facts))
        return made

    def tensors(
        self, searched: Tensor, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What a search's state holds: what is searched, its optimizer and randomness, who won, losses, looks."""
        won = {f"won/{i}": torch.tensor(ids) for i, ids in self.won.items()}
        steps = {f"optimizer/{name}": value for name, value in optimizer_tensors(optimizer).items()}
        own = {"loss": self.loss, "looks": torch.tensor(self.looks), "generator": generator.get_state()}
        return {**won, **steps, **own, "searched": searched.detach()}

    def restored(
        self, state: SearchState, searched: Tensor, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> int:
        """Put back what `tensors` gave, if a state holds it; gives the step to go on with, else 0."""
        kept = state.restore()
        if kept is None:
            return 0
        step, tensors = kept
        self.won = {int(k.partition("/")[2]): v.tolist() for k, v in tensors.items() if k.startswith("won/")}
        self.loss, self.looks = tensors["loss"], int(tensors["looks"])
        searched.data = tensors["searched"].to(searched.device)
        generator.set_state(tensors["generator"])
        steps = {k.partition("/")[2]: v for k, v in tensors.items() if k.startswith("optimizer/")}
        restore_optimizer(optimizer, steps)
        return step
