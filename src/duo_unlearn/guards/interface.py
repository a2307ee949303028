"""What a guard is: a rule at sampling that changes no weights. It may refuse an image, and a refusal is no picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..storage.forms import Strict

if TYPE_CHECKING:
    from ..families.family import Family
    from ..families.interface import Hooks, Model, Moments


class Context(NamedTuple):
    """What a guard is built from.

    model: with the edits of its system on. concept: the words of the concept. moments(): of the pairs' unsafe images.
    folder: where what it learns is kept, by its key. key: what decides that beside its options. seed: the run's.
    """

    model: Model
    concept: str
    moments: Callable[[], Moments]
    folder: Path
    key: str
    seed: int
    quiet: bool = False


class Guard(Protocol):
    """One kind of guard.

    name, title: as tables name it. settings: its options' class. learns: whether it learns from the run's pairs.
    acts_on: where it acts, for people: "conditioning", "prediction", "clean latents" or "image".
    """

    name: str
    title: str
    settings: type[Strict]
    learns: bool
    acts_on: str

    def why_not(self, kind: Family) -> str | None:
        """Why a family cannot have it, or None."""
        ...

    def build(self, options: Mapping[str, Any], context: Context) -> Hooks:
        """What it does while images are sampled, for one system."""
        ...
