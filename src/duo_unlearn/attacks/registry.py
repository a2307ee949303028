"""The attacks that there are. One that joins adds a file and its line here."""

from __future__ import annotations

from typing import Final

from .direct import AdapterRemoval, Direct, ImageToImage
from .interface import Attack
from .inversion import ConceptInversion
from .p4d import P4D
from .relearning import Relearning
from .ring_a_bell import RingABell
from .sneaky_prompt import SneakyPrompt
from .unlearn_diff import UnlearnDiffAtk

_ALL: Final[tuple[Attack, ...]] = (
    Direct(),
    RingABell(),
    SneakyPrompt(),
    ConceptInversion(),
    UnlearnDiffAtk(),
    P4D("n"),
    P4D("k"),
    ImageToImage(),
    Relearning("concept", 20),
    Relearning("concept", 100),
    Relearning("concept", 300),
    Relearning("benign", 300),
    AdapterRemoval(),
)
ATTACKS: Final[dict[str, Attack]] = {attack.name: attack for attack in _ALL}
