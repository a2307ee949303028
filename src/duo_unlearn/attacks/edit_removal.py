"""Edit removal: the prompts, after every edit was taken off: what anyone can do to an edit that is not merged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final

from torch import Tensor

from .interface import Attack, Target, plain_findings


@dataclasses.dataclass(frozen=True)
class Budget:
    """Nothing is spent."""


def _during(target: Target, _budget: Budget, _weights: Mapping[str, Tensor]) -> AbstractContextManager[None]:
    return target.original()


EDIT_REMOVAL: Final = Attack(
    "edit-removal",
    "Removal of all edits",
    {"quick": Budget(), "paper": Budget()},
    plain_findings,
    prompts_at_once=64,
    needs=frozenset({"edits"}),
    during=_during,
    counts_in_worst_case=False,
    level="generator",
)
