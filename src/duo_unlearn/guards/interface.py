"""What a guard is: a rule at sampling that changes no weights. It may refuse an image, and a refusal is no picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from ..storage.forms import Strict

if TYPE_CHECKING:
    from PIL import Image

    from ..detectors.interface import Detector
    from ..families.family import Family
    from ..families.interface import Hooks, Model, Moments
    from ..records import Level

Branch = Literal["prompt", "negative"]
"""A side of guidance that one guard of a system may replace."""
Asks = Literal["any detector", "a detector that heads no table"]
Seen = Literal["whole", "part", "nothing"]
"""How much of a guard is in what a search differentiates that is aware of guards."""


class Sides(NamedTuple):
    """The pairs' pictures, in order."""

    unsafe: list[Image.Image]
    safe: list[Image.Image]


class Learned(NamedTuple):
    """What a guard may learn from the pairs that training uses, read when it is called.

    unsafe(), safe(): latents of their members, (pair, c, h, w). words(): the prompts of each, "" where it has none.
    """

    unsafe: Callable[[], Moments]
    safe: Callable[[], Moments]
    pictures: Callable[[], Sides]
    words: Callable[[], Sequence[tuple[str, str]]]


class Context(NamedTuple):
    """What a guard is built from.

    model: with the edits of its system on. concept: the words of the concept. pairs: of the run. folder: where what it
    learns is kept, by its key. key: what decides that beside its options. seed: the run's. detector(name, labels,
    threshold): one that it asks, by the names of the concept file; each None for the run's own. claim(name): a block
    that one process of the run is in at a time, while others wait: one learns, and they read.
    """

    model: Model
    concept: str
    pairs: Learned
    folder: Path
    key: str
    seed: int
    detector: Callable[[str | None, Sequence[str] | None, float | None], Detector]
    quiet: bool = False
    claim: Callable[[str], AbstractContextManager[object]] = nullcontext


class Guard(Protocol):
    """One kind of guard.

    name, title: as tables name it. version: raised when the same options make other images than before, so that systems
    with it are others than they were; aware_version: when a search that is aware of guards sees otherwise what it does.
    settings: its options' class. learns: whether it learns from the run's pairs.
    acts_on: where it acts, for people: "conditioning", "prediction", "clean latents", "start noise" or "image". level:
    the same by the survey's four levels. cost: what an image costs beside the sampling, for people. replaces: the side
    of guidance that it puts its own in the place of; two guards of a system do not replace the same. asks: which
    detector its option `detector` may name; None: it has no such option. seen: how much of it a search that is aware of
    guards differentiates through. What it chooses by a prompt's tokens has no gradient. needs_negative: whether it acts
    by guidance's negative branch, so that it does nothing where a pipeline asks for the prompt alone.
    """

    name: str
    title: str
    version: int
    aware_version: int
    settings: type[Strict]
    learns: bool
    acts_on: str
    level: Level
    cost: str
    replaces: Branch | None
    asks: Asks | None
    seen: Seen
    needs_negative: bool

    def why_not(self, kind: Family) -> str | None:
        """Why a family cannot have it, or None."""
        ...

    def build(self, options: Mapping[str, Any], context: Context) -> Hooks:
        """What it does while images are sampled, for one system."""
        ...
