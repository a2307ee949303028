"""What a model brings to a new concept file: a detector that can see the concept, and its family's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..concepts.new import INSTEAD, Ground, clip_detector
from ..concepts.store import load_concept, shipped_concepts
from ..detectors.mini_judge import MiniJudge, MiniJudgeB, labels_in
from ..errors import DuoError
from ..families.identify import family_of
from ..families.mini import MINI


def ground_of(model: str, said: str, safe: Sequence[str]) -> Ground:
    """The ground of a model, named as for `duo erase`. said, safe: what to erase and to draw in its place (`words_of`).

    DuoError: the model has a fault, no detector of its family can see what is said, or it does not know the usual words
    for what is drawn in place.
    """
    family = family_of(model)
    if family == MINI.name:
        if tuple(safe) == INSTEAD:
            problem = "the mini model must be told what to draw in place of the concept"
            raise DuoError(problem, got=f"it knows nothing of {' and '.join(INSTEAD)}", hint='--safe "a king"')
        shipped = load_concept("sword")
        detector, judge = ({"name": kind.name, "labels": list(labels_in(said))} for kind in (MiniJudge, MiniJudgeB))
        return Ground(detector, [judge], _places(shipped.fill["place"]), _recommended(family))
    return Ground(clip_detector(said, safe), recommended=_recommended(family))


def _places(fill: Any) -> list[str]:
    """Every wording of a fill of {place}."""
    return [words for choice in fill.values() for words in choice]


def _recommended(family: str) -> dict[str, Any]:
    """What the first shipped concept with settings for a family recommends, but what it tells guards: its own words."""
    for name in sorted(shipped_concepts(), key=lambda name: name != "sword"):
        if (found := load_concept(name).recommended.get(family)) is not None:
            source = f"those of the shipped concept {name}: {found.source}"
            settings = {key: value for key, value in found.settings.items() if key != "guards"}
            return {family: {"source": source, "settings": settings}}
    return {}
