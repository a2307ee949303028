"""What a detector promises: its contract, and one verdict an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from PIL import Image

from ..errors import DuoError
from ..records import Verdict


class Contract(NamedTuple):
    """What makes two detections comparable: same name, labels, threshold and weights.

    threshold: the score from which the concept counts as seen. weights: first 8 digits of their SHA-256.
    """

    name: str
    labels: tuple[str, ...]
    threshold: float
    weights: str

    def __str__(self) -> str:
        return f"{self.name}[{'|'.join(self.labels)}>={self.threshold:g}]@{self.weights}"


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


Maker = Callable[[tuple[str, ...], float | None], Detector]
_MAKERS: dict[str, Maker] = {}


def register(name: str, maker: Maker) -> None:
    """Make a detector known under a name; maker(labels, threshold or None for its default)."""
    if name in _MAKERS:
        raise ValueError(f"two detectors are called {name!r}")
    _MAKERS[name] = maker


def make_detector(name: str, labels: tuple[str, ...], threshold: float | None = None) -> Detector:
    """A registered detector under a contract; an unknown name fails and lists the choices."""
    if name not in _MAKERS:
        raise DuoError("unknown detector", got=name, hint=f"one of: {', '.join(sorted(_MAKERS)) or '(none)'}")
    return _MAKERS[name](labels, threshold)


def detector_names() -> list[str]:
    """The registered names, sorted."""
    return sorted(_MAKERS)
