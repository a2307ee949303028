"""The detectors that guards ask: which one an option names; and none may work towards the one that heads the tables."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from ..concepts.spec import Concept, DetectorSpec
from ..detectors.own_function import is_own
from ..detectors.registry import check_detector
from ..errors import DuoError
from ..families.registry import FAMILIES
from ..guards.registry import GUARDS
from .tree import Settings


def guard_detector(
    concept: Concept, settings: Settings, name: str | None, labels: Sequence[str] | None, threshold: float | None
) -> DetectorSpec:
    """The detector of a guard's options.

    name: of the concept file; None: the run's. With labels, or as a user's function, it may be any other one.
    """
    if name is not None and (labels is not None or is_own(name)):
        return DetectorSpec(name=name, labels=list(labels or []), threshold=threshold)
    spec = concept.detector_named(name or settings.detector)
    return spec if threshold is None else spec.model_copy(update={"threshold": threshold})


def check_guard_family(guard: str, family: str) -> None:
    """Fail for a guard that a family cannot have."""
    if (reason := GUARDS.get(guard).why_not(FAMILIES.get(family))) is not None:
        raise DuoError(f"the guard {guard} cannot be used here", got=reason, hint="duo guards")


def check_asked(
    concept: Concept, settings: Settings, guard: str, options: Mapping[str, Any], family: str | None = None
) -> None:
    """Fail for a guard that works towards the judge that heads the tables, and for a detector that cannot be had.

    family: of the model, where it is known. What is improved until a detector is content says nothing under it, so
    under a judge that stands beside it such a guard has no number.
    """
    asks = GUARDS.get(guard).asks
    if asks is None:
        return
    spec = guard_detector(concept, settings, options.get("detector"), options.get("labels"), options.get("threshold"))
    if asks == "a detector that heads no table" and spec.name == (heads := _heads(concept, settings, family))[0]:
        others = ", ".join(heads[1:]) or "another detector"
        hint = f"--set evaluate.judges=[{others}], or --set guards.{guard}.detector=ANOTHER"
        raise DuoError(f"the guard {guard} works towards the detector that measures", got=spec.name, hint=hint)
    if family is not None:
        check_detector(spec.name, family, tuple(spec.labels), spec.threshold)


def _heads(concept: Concept, settings: Settings, family: str | None) -> list[str]:
    """The judges that score, the one that heads the tables first. Of those that nobody named, some cannot be had."""
    judges = concept.scorers(settings.evaluate.judges, settings.detector)
    if family is None or settings.evaluate.judges is not None:
        return [judge.name for judge in judges]
    there = []
    for judge in judges:
        with contextlib.suppress(DuoError):
            check_detector(judge.name, family, tuple(judge.labels), judge.threshold)
            there.append(judge.name)
    return there or [judge.name for judge in judges]
