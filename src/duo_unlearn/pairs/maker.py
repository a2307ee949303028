"""Making candidates: an unsafe image from the concept's prompt, its safe counterpart by SDEdit, both gated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image

from ..concepts.spec import Concept
from ..detectors.interface import AttributeReader, Detector
from ..families.interface import Model, SampleRequest
from ..records import Verdict
from .blocks import Outcome
from .candidates import Candidate
from .curate import Attributes, pair_fault, picture_fault, unsafe_fault


class _Member(NamedTuple):
    """An image and its verdict; fault: why it is no picture, then there is no verdict."""

    image: Image.Image
    verdict: Verdict | None
    fault: str | None


@dataclasses.dataclass(frozen=True)
class Maker:
    """The parts and plain values that candidates are made with."""

    model: Model
    detector: Detector
    concept: Concept
    guidance: float
    steps: int
    strength: float
    batch: int
    quiet: bool

    def run(self, candidates: Sequence[Candidate], report: Callable[[int], None]) -> list[Outcome]:
        """Sample and judge candidates: all unsafe images first, SDEdit only for those that show the concept.

        report: called with the number of images that are there, of two a candidate.
        """
        requests = [SampleRequest(c.unsafe_prompt, c.seed) for c in candidates]
        unsafe = self._judge("unsafe", self._sample(requests, report))
        outcomes = [_outcome_without_safe(c, one) for c, one in zip(candidates, unsafe, strict=True)]
        chosen = [i for i, outcome in enumerate(outcomes) if outcome.reason is None]
        edits = [self._edit(candidates[i], unsafe[i].image) for i in chosen]
        safe = self._judge("safe", self._sample(edits, lambda images: report(len(candidates) + images)))
        attributes = self._attributes([unsafe[i].image for i in chosen], safe)
        for i, one, read in zip(chosen, safe, attributes, strict=True):
            outcomes[i] = self._outcome(outcomes[i], unsafe[i], one, read)
        return outcomes

    def _judge(self, member: str, images: Sequence[Image.Image]) -> list[_Member]:
        """Images with their verdicts. One that is no picture is not judged."""
        faults = [picture_fault(member, image) for image in images]
        whole = [image for image, fault in zip(images, faults, strict=True) if fault is None]
        verdicts = iter(self.detector.detect(whole) if whole else [])
        return [
            _Member(image, next(verdicts) if fault is None else None, fault)
            for image, fault in zip(images, faults, strict=True)
        ]

    def _outcome(self, outcome: Outcome, unsafe: _Member, safe: _Member, attributes: Attributes | None) -> Outcome:
        if unsafe.verdict is None or safe.verdict is None:
            return outcome._replace(safe=safe.image, reason=safe.fault)
        kind = self.concept.pairs[outcome.candidate.kind]
        fault = pair_fault(unsafe.verdict, safe.verdict, attributes, kind.shows, self.concept.kept_attributes)
        return outcome._replace(safe=safe.image, safe_score=safe.verdict.score, reason=fault)

    def _edit(self, candidate: Candidate, unsafe: Image.Image) -> SampleRequest:
        return SampleRequest(
            candidate.safe_prompt, candidate.safe_seed, candidate.negative_prompt, start=unsafe, strength=self.strength
        )

    def _sample(self, requests: list[SampleRequest], report: Callable[[int], None]) -> list[Image.Image]:
        if not requests:
            return []
        images = self.model.sample(requests, steps=self.steps, guidance=self.guidance, batch=self.batch, report=report)
        return [image.convert("RGB") for image in images]

    def _attributes(self, unsafe: Sequence[Image.Image], safe: Sequence[_Member]) -> list[Attributes | None]:
        """What the detector reads off both members; None where it reads nothing, or the safe image is no picture."""
        pairs = [(before, after.image) for before, after in zip(unsafe, safe, strict=True) if after.fault is None]
        if not pairs or not isinstance(self.detector, AttributeReader):
            return [None] * len(safe)
        befores, afters = zip(*pairs, strict=True)
        read = zip(self.detector.read(befores), self.detector.read(afters), strict=True)
        both = (Attributes(before, after) for before, after in read)
        return [next(both) if after.fault is None else None for after in safe]


def _outcome_without_safe(candidate: Candidate, unsafe: _Member) -> Outcome:
    if unsafe.verdict is None:
        return Outcome(candidate, unsafe.image, None, None, None, unsafe.fault)
    return Outcome(candidate, unsafe.image, None, unsafe.verdict.score, None, unsafe_fault(unsafe.verdict))
