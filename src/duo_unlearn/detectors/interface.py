"""What a detector promises: a contract, and one verdict an image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, runtime_checkable

from PIL import Image

from ..records import Verdict

if TYPE_CHECKING:
    from torch import Tensor


class Contract(NamedTuple):
    """What makes two detections comparable: the same name, labels, threshold, weights and colour order.

    threshold: the score from which the concept counts as seen. weights: the first 8 digits of their SHA-256. colours:
    the order in which the network gets them.
    """

    name: str
    labels: tuple[str, ...]
    threshold: float
    weights: str
    colours: Literal["RGB", "BGR"] = "RGB"

    def __str__(self) -> str:
        order = "" if self.colours == "RGB" else f",{self.colours}"
        return f"{self.name}[{'|'.join(self.labels)}>={self.threshold:g}{order}]@{self.weights}"


_WRITTEN: Final = re.compile(r"(.*)>=([-+.\de]+)(.*)", re.DOTALL)
"""A contract as it is written: what stands before its threshold, that, and what stands behind it."""


def sees_all_of(contract: str, other: str) -> bool:
    """Whether a contract's detector sees the concept wherever another's does: the same one, at no higher threshold."""
    mine, its = _WRITTEN.fullmatch(contract), _WRITTEN.fullmatch(other)
    if mine is None or its is None:
        return contract == other
    return mine.group(1, 3) == its.group(1, 3) and float(mine[2]) <= float(its[2])


class Detector(Protocol):
    """Sees whether the concept is in an image. The batch that an image comes in must not change its verdict."""

    contract: Contract

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image, in order."""
        ...


@runtime_checkable
class Differentiable(Protocol):
    """A detector whose score has a gradient in the pixels, so that images can be steered by it."""

    def scores(self, pixels: Tensor) -> Tensor:
        """Pixels in [−1, 1], (image, 3, height, width) → what the threshold is applied to, (image,), on any device."""
        ...


class Extra(NamedTuple):
    """A package that a detector needs and that is no dependency. package: its module. install: the command."""

    package: str
    install: str


class DetectorClass(Protocol):
    """A kind of detector, as the registry has it: its facts, and how one is made. Its file imports no torch at the top.

    families: the model families whose pictures it knows; None: all of them. extra: None where it needs no package more.
    example: labels that it takes, which its contract test uses.
    """

    families: tuple[str, ...] | None
    extra: Extra | None
    example: tuple[str, ...]

    def __call__(self, labels: tuple[str, ...], threshold: float | None = None) -> Detector:
        """A detector, its weights loaded. threshold: None for its own. Labels that it does not take are a DuoError."""
        ...

    def why_no_weights(self, labels: tuple[str, ...]) -> str | None:
        """Why the weights that the labels ask for are not at hand, or None. Nothing is loaded, nothing is fetched.

        Labels that it does not take are a DuoError, as far as that is seen without the weights.
        """
        ...

    def known_weights(self, labels: tuple[str, ...]) -> str | None:
        """The weights' hash as the contract will have it, from files that are here; None: the hub has them.

        Nothing is loaded. It is asked where `why_no_weights` has no reason.
        """
        ...


@runtime_checkable
class AttributeReader(Protocol):
    """A detector that can also read attributes off an image, to gate pairs and to measure what is preserved."""

    def read(self, images: Sequence[Image.Image]) -> list[Mapping[str, str]]:
        """Attribute → label, one mapping an image, in order."""
        ...


def verdicts_of(detector: Detector, images: Sequence[Image.Image | None], errors: list[str]) -> list[Verdict | None]:
    """One verdict an image, None where there is no image or where the detector fails on it.

    errors: gets a line for each image that it fails on. Where a batch fails, its images are judged one by one, so that
    one bad image costs one verdict.
    """
    there = [image for image in images if image is not None]
    try:
        verdicts = iter(detector.detect(there))
        return [None if image is None else next(verdicts) for image in images]
    except Exception as error:  # a detector may be anyone's code, and what it raises is counted
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's; no image's fault
            raise
        if len(images) == 1:
            errors.append(f"{type(error).__name__}: {error}"[:200])
            return [None]
        return [verdict for image in images for verdict in verdicts_of(detector, [image], errors)]
