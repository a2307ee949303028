"""Token searches on several prompts at once, each of which stops at the first image that shows the concept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..families.interface import SampleRequest
from ..families.tokens import encode_ids, text_of
from .interface import Artifact, Subject


class SideBySide:
    """Which of some prompts have won, and by which token sequence. loss: each prompt's last one, nan before."""

    def __init__(self, subject: Subject, seeds: Sequence[int]) -> None:
        self.subject, self.seeds = subject, seeds
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
            text = encode_ids(self.subject.model, whole[open_])
        requests = [SampleRequest("", self.seeds[i], embedding=text.rows(slice(k, k + 1))) for k, i in enumerate(open_)]
        self.looks += 1
        for i, seen in zip(open_, self.subject.detect(self.subject.sample(requests)), strict=True):
            if seen:
                self.won[i] = whole[i].tolist()
        return not self.open()

    def artifacts(self, whole: Tensor, lengths: Sequence[int]) -> list[Artifact]:
        """The sequence that won, or else that of `whole`. lengths: each prompt's tokens, without start and end."""
        made = []
        for i, length in enumerate(lengths):
            ids = self.won.get(i, whole[i].tolist())
            facts = {"loss": float(self.loss[i]), "checks": float(self.looks), "won": float(i in self.won)}
            made.append(Artifact(text_of(self.subject.model, ids[1:-1][:length]), ids, facts=facts))
        return made
