"""Which guards a system may hold together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..errors import DuoError
from .registry import GUARDS


def check_stack(names: Sequence[str]) -> None:
    """Fail where two guards replace the same side of guidance: the later one would undo the first."""
    for first, second in itertools.combinations(names, 2):
        side = GUARDS.get(first).replaces
        if side is not None and side == GUARDS.get(second).replaces:
            got = f"{first} and {second} both replace the {side} of guidance"
            raise DuoError("these guards exclude each other", got=got, hint="name one of them")
