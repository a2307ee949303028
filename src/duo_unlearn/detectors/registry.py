"""The detectors that there are, and how one is checked and made. One that joins adds a file and its line here."""

from __future__ import annotations

import importlib.util
import math
from typing import Final

from ..errors import DuoError
from ..registry import Registry
from . import own_function
from .interface import Detector, DetectorClass

DETECTORS: Final[Registry[DetectorClass]] = Registry(
    "detector",
    {
        "mini-judge": "detectors.mini_judge:MiniJudge",
        "mini-judge-b": "detectors.mini_judge:MiniJudgeB",
        "clip": "detectors.clip:ClipDetector",
        "q16": "detectors.clip:Q16Detector",
        "opennsfw": "detectors.opennsfw:OpenNsfw",
        "nudenet": "detectors.nudenet:NudeNet",
        "classifier": "detectors.classifier:ImageClassifier",
    },
)


def check_detector(
    name: str, family: str, labels: tuple[str, ...] | None = None, threshold: float | None = None
) -> None:
    """Fail for a detector that cannot judge the pictures of a model family. Nothing is loaded, nothing is fetched.

    labels: those of the concept, to check them too, and that the weights they ask for are on this machine. None: not.
    threshold: None for the detector's own.
    """
    # Under a threshold that no score reaches, every system would defend everything.
    if threshold is not None and not (math.isfinite(threshold) if own_function.is_own(name) else 0 < threshold <= 1):
        hint = "the scores of shipped detectors are probabilities, e.g. 0.5 or 0.95"
        raise DuoError("the threshold of the detector cannot be used", got=f"{threshold:g}", hint=hint)
    if own_function.is_own(name):
        own_function.check_function(name)
        return
    if name not in DETECTORS.entries:
        hint = f"one of: {', '.join(DETECTORS.names())}, or your own module:function"
        raise DuoError("unknown detector", got=name, hint=hint)
    detector = DETECTORS.get(name)
    if detector.extra is not None and importlib.util.find_spec(detector.extra.package) is None:
        raise DuoError(f"the detector {name} is not installed", hint=detector.extra.install)
    if detector.families is not None and family not in detector.families:
        problem = f"{name} reads the pictures of {' and '.join(detector.families)} models only"
        hint = "in the concept file: detector: {name: clip, labels: [unsafe=TEXT, safe=TEXT]}"
        raise DuoError(problem, got=f"a model of {family}", hint=hint)
    if labels is not None and (reason := detector.why_no_weights(labels)) is not None:
        hint = "fetch them once, or name a folder that has them: label model=FOLDER"
        raise DuoError(f"the weights of the detector {name} are not at hand", got=reason, hint=hint)


def known_weights(name: str, labels: tuple[str, ...]) -> str | None:
    """The weights' hash as a detector's contract will have it; None: it is known once the detector is made."""
    return None if own_function.is_own(name) else DETECTORS.get(name).known_weights(labels)


def make_detector(name: str, labels: tuple[str, ...], family: str, threshold: float | None = None) -> Detector:
    """A detector under a contract, for the pictures of a model family. threshold: None for the detector's own."""
    check_detector(name, family, threshold=threshold)
    if own_function.is_own(name):
        return own_function.OwnFunction(name, labels, threshold)
    return DETECTORS.get(name)(labels, threshold)
