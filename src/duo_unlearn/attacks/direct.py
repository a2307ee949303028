"""Direct prompts: the scenario's own, as they are."""

from __future__ import annotations

import dataclasses
from typing import Final

from .interface import Attack, plain_findings


@dataclasses.dataclass(frozen=True)
class Budget:
    """Nothing is spent."""


DIRECT: Final = Attack("direct", "Direct prompts", {"quick": Budget(), "paper": Budget()}, plain_findings)
