"""What a detector promises: its contract, and one verdict an image."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol, runtime_checkable

from PIL import Image

from ..errors import DuoError
from ..records import Verdict
from ..storage.files import sha256_of

UNREADABLE: Final = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for a broken image, when it opens it or when it decodes it."""


class Contract(NamedTuple):
    """What makes two detections comparable: same name, labels, threshold, weights and colour order.

    threshold: the score from which the concept counts as seen. weights: first 8 digits of their SHA-256. colours: the
    order in which the network gets them.
    """

    name: str
    labels: tuple[str, ...]
    threshold: float
    weights: str
    colours: Literal["RGB", "BGR"] = "RGB"

    def __str__(self) -> str:
        order = "" if self.colours == "RGB" else f",{self.colours}"
        return f"{self.name}[{'|'.join(self.labels)}>={self.threshold:g}{order}]@{self.weights}"


class Detector(Protocol):
    """Sees whether the concept is in an image. The batch an image comes in must not change its verdict."""

    contract: Contract

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image, in order."""
        ...


@runtime_checkable
class AttributeReader(Protocol):
    """A detector that can also read attributes off an image, to gate pairs and to measure what is preserved."""

    def read(self, images: Sequence[Image.Image]) -> list[Mapping[str, str]]:
        """Attribute → label, one mapping an image, in order."""
        ...


def verdicts_of(detector: Detector, images: Sequence[Image.Image | None], errors: list[str]) -> list[Verdict | None]:
    """Of a batch, None where there is no image or the detector fails on it; what it raised is added to `errors`.

    Where a batch fails it is judged image by image, so that one bad image costs one verdict.
    """
    there = [image for image in images if image is not None]
    try:
        found = iter(detector.detect(there))
        return [None if image is None else next(found) for image in images]
    except Exception as error:  # a detector may be anyone's code, and what it raises is counted
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's; no image's fault
            raise
        if len(images) == 1:
            errors.append(f"{type(error).__name__}: {error}"[:200])
            return [None]
        return [verdict for image in images for verdict in verdicts_of(detector, [image], errors)]


DETECTORS: Final = {
    "mini-judge": "mini_judge.MiniJudge",
    "clip": "clip.ClipDetector",
    "q16": "clip.Q16Detector",
    "opennsfw": "opennsfw.OpenNsfw",
    "nudenet": "nudenet.NudeNet",
    "classifier": "classifier.ImageClassifier",
}
"""Name → module and class, imported when used: each is made as CLASS(labels, threshold or None for its default)."""
EXTRAS: Final = {"nudenet": ("nudenet", "pip install duo_unlearn[nudenet]")}
"""Detectors of packages that are no dependency: the package, and how to install it."""


def weights_digest(source: str, config: Any) -> str:
    """First 8 digits of the hash of a model's weight files, or of its commit where it comes from the hub."""
    folder = Path(source)
    files = sorted(folder.glob("*.safetensors")) if folder.exists() else []
    commit = str(getattr(config, "_commit_hash", None) or source)
    return hashlib.sha256("".join(map(sha256_of, files)).encode() if files else commit.encode()).hexdigest()[:8]


def check_detector(name: str, family: str) -> None:
    """Fail for a detector that does not exist, or that does not know the pictures of a model family. Loads nothing."""
    if ":" in name:
        # The user's own function, module:function; its module is looked for, and not run.
        try:
            there = importlib.util.find_spec(name.partition(":")[0])
        except (ImportError, ValueError):
            there = None
        if there is None:
            raise DuoError(
                "cannot import the detector", got=name, hint="module:function, importable from here (PYTHONPATH)"
            )
        return
    if name not in DETECTORS:
        hint = f"one of: {', '.join(DETECTORS)}, or your own module:function"
        raise DuoError("unknown detector", got=name, hint=hint)
    if name in EXTRAS and importlib.util.find_spec(EXTRAS[name][0]) is None:
        raise DuoError(f"the detector {name} is not installed", hint=EXTRAS[name][1])
    if name == "mini-judge" and family != "mini":
        hint = "in the concept file: detector: {name: clip, labels: [unsafe=TEXT, safe=TEXT]}"
        raise DuoError("mini-judge reads the pictures of the mini world only", got=f"a model of {family}", hint=hint)


def make_detector(name: str, labels: tuple[str, ...], family: str, threshold: float | None = None) -> Detector:
    """A detector under a contract, for the pictures of a model family."""
    check_detector(name, family)
    if ":" in name:
        from .own_function import PythonCallable

        return PythonCallable(name, labels, threshold)
    module, _, maker = DETECTORS[name].partition(".")
    made: Detector = getattr(importlib.import_module(f"{__package__}.{module}"), maker)(labels, threshold)
    return made
