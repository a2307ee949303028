"""The weights that an attacker trains: once a system and prompt set. They are gone when every part is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import Tensor

from ..attacks.interface import Target
from ..runs.search_state import SearchState
from ..session import Session
from ..storage.files import digest
from .plans import Plan
from .target import asked_of

FILE: Final = "fine-tuned.state.safetensors"


class FineTuning:
    """The weights of one attack on one system, in a file beside the attempts, under the key of all that decides them.

    base: the state of the original model. Of a published model the file is large: the attention weights of Stable
    Diffusion 1.x are 0.37 GB, those of SDXL 3.8 GB. They are asked for again where an image was lost alone, and then
    training takes minutes, so the file is kept no longer than parts are missing.
    """

    def __init__(
        self, session: Session, plan: Plan, base: str, train: Callable[[Target, Any], dict[str, Tensor]]
    ) -> None:
        self.train, self.budget, self.run, group = train, plan.budget, session.run, plan.group
        basis = [
            plan.attack.name, plan.attack.version, dataclasses.asdict(plan.budget), plan.system.sha256, base,
            session.settings.seed, session.pairs_digest, list(session.benign),
            *filter(None, [asked_of(session, plan)]),
        ]  # fmt: skip
        self.file = SearchState(group.folder(session.run) / FILE, digest(basis)[:16], every=0.0)
        self.claim = group.claim("fine-tuning")

    def is_at_work(self) -> bool:
        """Whether another process trains now."""
        with self.run.claim(self.claim) as mine:
            return not mine

    def weights(self, target: Target) -> Mapping[str, Tensor]:
        """The weights, by name: read, or trained and written by one process while others wait."""
        if (known := self.file.restore()) is not None:
            return known[1]
        with self.run.claim(self.claim, wait=True):
            # Between the look and the claim another process may have trained them.
            if (known := self.file.restore()) is not None:
                return known[1]
            trained = self.train(target, self.budget)
            self.file.offer(self.budget.steps, lambda: trained)
            return trained

    def clear(self) -> None:
        """Delete the file: every part is there."""
        self.file.clear()
