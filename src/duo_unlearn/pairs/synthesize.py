"""Making pairs: an unsafe image from the concept's prompt, its safe counterpart by SDEdit, both gated.

SDEdit (Meng et al., 2022; the paper's section 4.1): the unsafe image is noised to `strength` of the schedule and
denoised under the safe prompt, with the unsafe prompt as negative prompt.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from PIL import Image

from ..concepts.spec import Concept
from ..detectors.interface import AttributeReader, Detector
from ..errors import DuoError
from ..families.interface import Model, SampleRequest
from ..progress import progress
from ..records import Pair, Verdict
from ..storage.pictures import save_png
from .candidates import Candidate, next_round
from .curate import Attributes, pair_fault, picture_fault, unsafe_fault
from .manifest import MANIFEST, PARTIAL, KindTries, Manifest, claim, save_manifest

BATCHES_A_ROUND: Final = 8
"""State is saved after each round; a killed run repeats one round at most."""
_DECISIVE: Final = {"fill", "pairs", "split", "kept_attributes", "negative_prompt"}


class _Outcome(NamedTuple):
    """A candidate as sampled and judged; reason: why it is no pair, None where it is one.

    safe is None where it was not sampled. A score is None where the image was not judged.
    """

    candidate: Candidate
    unsafe: Image.Image
    safe: Image.Image | None
    unsafe_score: float | None
    safe_score: float | None
    reason: str | None


class _Member(NamedTuple):
    """An image and its verdict; fault: why it is no picture, then there is no verdict."""

    image: Image.Image
    verdict: Verdict | None
    fault: str | None


@dataclasses.dataclass(frozen=True)
class _Maker:
    """The parts and plain values that a round needs."""

    model: Model
    detector: Detector
    concept: Concept
    guidance: float
    steps: int
    strength: float
    batch: int
    quiet: bool

    def run_round(self, candidates: Sequence[Candidate]) -> list[_Outcome]:
        """Sample and judge candidates: all unsafe images first, SDEdit only for those that show the concept."""
        requests = [SampleRequest(c.unsafe_prompt, c.seed) for c in candidates]
        unsafe = self._judge("unsafe", self._sample(requests, "pairs: unsafe images"))
        outcomes = [_outcome_without_safe(c, one) for c, one in zip(candidates, unsafe, strict=True)]
        chosen = [i for i, outcome in enumerate(outcomes) if outcome.reason is None]
        edits = [self._edit(candidates[i], unsafe[i].image) for i in chosen]
        safe = self._judge("safe", self._sample(edits, "pairs: safe images"))
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

    def _outcome(self, outcome: _Outcome, unsafe: _Member, safe: _Member, attributes: Attributes | None) -> _Outcome:
        if unsafe.verdict is None or safe.verdict is None:
            return outcome._replace(safe=safe.image, reason=safe.fault)
        kind = self.concept.pairs[outcome.candidate.kind]
        fault = pair_fault(unsafe.verdict, safe.verdict, attributes, kind.shows, self.concept.kept_attributes)
        return outcome._replace(safe=safe.image, safe_score=safe.verdict.score, reason=fault)

    def _edit(self, candidate: Candidate, unsafe: Image.Image) -> SampleRequest:
        return SampleRequest(
            candidate.safe_prompt, candidate.safe_seed, candidate.negative_prompt, start=unsafe, strength=self.strength
        )

    def _sample(self, requests: list[SampleRequest], title: str) -> list[Image.Image]:
        if not requests:
            return []
        with progress(title, len(requests), quiet=self.quiet) as report:
            images = self.model.sample(
                requests, steps=self.steps, guidance=self.guidance, batch=self.batch, report=report
            )
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


def _outcome_without_safe(candidate: Candidate, unsafe: _Member) -> _Outcome:
    if unsafe.verdict is None:
        return _Outcome(candidate, unsafe.image, None, None, None, unsafe.fault)
    return _Outcome(candidate, unsafe.image, None, unsafe.verdict.score, None, unsafe_fault(unsafe.verdict))


def make_pairs(
    model: Model,
    detector: Detector,
    concept: Concept,
    folder: Path,
    *,
    scale: float,
    guidance: float,
    steps: int,
    strength: float | None,
    batch: int,
    tries: int,
    seed: int,
    held_out: bool = False,
    quiet: bool = False,
) -> list[Pair]:
    """Make round(count × scale) pairs of each of the concept's kinds, or read those that `folder` holds already.

    tries: candidates a wanted pair at most, on average over its kind. held_out: pairs to measure a training on, of
    which a kind may have none. The result is a function of (model, detector,
    concept, scale, guidance, steps, strength, tries, seed): neither `batch` (where the model's images do not depend on
    it) nor a kill and a restart changes it, and more tries add to what was found. A folder with pairs of other settings
    is a DuoError, and so is a kind that ends with less than half of its pairs; what was found stays in the manifest.
    """
    strength = concept.strength if strength is None else strength
    if int(steps * strength) < 1:
        got = f"strength {strength} of {steps} steps"
        raise DuoError("SDEdit would take no step", got=got, hint="raise pairs.strength or pairs.steps")
    plain = {"scale": scale, "guidance": guidance, "steps": steps, "strength": strength, "seed": seed, "tries": tries}
    settings = _identity(model, detector, concept) | plain
    found, least = claim(folder, concept.name, settings), 0 if held_out else 1
    if found is None or not _is_over(found, tries):
        fresh = [KindTries(k.unsafe, k.safe, max(least, round(k.count * scale))) for k in concept.pairs]
        pairs, records = (found.pairs, found.tries) if found else ([], fresh)
        search = _Search(folder, concept.name, settings, list(pairs), list(records))
        search.run(_Maker(model, detector, concept, guidance, steps, strength, batch, quiet))
        found = Manifest(concept.name, settings, search.pairs, search.records, True)
    if not held_out:
        _conclude(found, folder, quiet)
    return found.pairs


def _identity(model: Model, detector: Detector, concept: Concept) -> dict[str, Any]:
    """What made the pairs: the model, the detector, and the part of the concept file that decides them, as hashes."""
    content = json.dumps(concept.model_dump(mode="json", include=_DECISIVE), sort_keys=True)
    prompts = hashlib.sha256(content.encode()).hexdigest()[:16]
    return {"model": model.fingerprint(), "detector": str(detector.contract), "prompts": prompts}


def _is_over(found: Manifest, tries: int) -> bool:
    complete = all(record.kept >= record.wanted for record in found.tries)
    return found.finished and (complete or found.settings.get("tries", tries) >= tries)


class _Search:
    """The pairs found so far, on disk after every round."""

    def __init__(
        self, folder: Path, concept: str, settings: dict[str, Any], pairs: list[Pair], records: list[KindTries]
    ) -> None:
        self.folder, self.concept, self.settings = folder, concept, settings
        self.pairs, self.records = pairs, records

    def run(self, maker: _Maker) -> None:
        """Rounds until every kind is full or has used up its tries."""
        tries, seed = self.settings["tries"], self.settings["seed"]
        most = BATCHES_A_ROUND * maker.batch
        self._save(PARTIAL)
        total = sum(record.wanted for record in self.records)
        while candidates := next_round(maker.concept, self.records, tries=tries, most=most, seed=seed):
            for outcome in maker.run_round(candidates):
                self._take(outcome, maker.strength)
            self._save(PARTIAL)
            if not maker.quiet:
                tried = sum(record.tries for record in self.records)
                print(f"pairs: {len(self.pairs)} of {total} after {tried} tries", file=sys.stderr, flush=True)
        self.pairs.sort(key=lambda pair: pair.name)
        self._save(MANIFEST)
        (self.folder / PARTIAL).unlink(missing_ok=True)

    def _save(self, name: str) -> None:
        save_manifest(
            self.folder,
            concept=self.concept,
            settings=self.settings,
            pairs=self.pairs,
            tries=self.records,
            name=name,
        )

    def _take(self, outcome: _Outcome, strength: float) -> None:
        """Count a candidate and keep its pair. Nothing counts once a kind is full, so rounds leave no trace."""
        record = self.records[outcome.candidate.kind]
        if record.kept == record.wanted:
            return
        if outcome.reason is None and outcome.safe is not None:
            # Numbered by kind and place in it, whatever the order in which the kinds were found.
            number = sum(r.wanted for r in self.records[: outcome.candidate.kind]) + record.kept
            self.pairs.append(self._write(outcome, outcome.safe, f"{number:04}", strength))
            new = dataclasses.replace(record, kept=record.kept + 1, tries=record.tries + 1)
        else:
            counts = Counter(record.rejected)
            counts[outcome.reason or ""] += 1
            new = dataclasses.replace(record, tries=record.tries + 1, rejected=dict(counts))
        self.records[outcome.candidate.kind] = new

    def _write(self, outcome: _Outcome, safe: Image.Image, name: str, strength: float) -> Pair:
        unsafe_file, safe_file, made = f"unsafe/{name}.png", f"safe/{name}.png", outcome.candidate
        return Pair(
            name=name,
            unsafe=unsafe_file,
            safe=safe_file,
            unsafe_sha256=save_png(outcome.unsafe, self.folder / unsafe_file),
            safe_sha256=save_png(safe, self.folder / safe_file),
            unsafe_prompt=made.unsafe_prompt,
            safe_prompt=made.safe_prompt,
            negative_prompt=made.negative_prompt,
            seed=made.seed,
            safe_seed=made.safe_seed,
            strength=strength,
            unsafe_score=outcome.unsafe_score,
            safe_score=outcome.safe_score,
        )


def _conclude(found: Manifest, folder: Path, quiet: bool) -> None:
    """Say what is missing: an error if some kind has less than half of its pairs, else a line on stderr."""
    short = [record for record in found.tries if record.kept < record.wanted]
    if not short:
        return
    parts = [f"{r.wanted - r.kept} of {r.wanted} for {r.safe_prompt!r}" for r in short]
    problem = f"pairs are missing after {found.settings['tries']} tries a pair: {'; '.join(parts)}"
    if all(2 * record.kept >= record.wanted for record in short):
        if not quiet:
            print(f"warning: {problem}; going on with {len(found.pairs)} pairs", file=sys.stderr, flush=True)
        return
    reasons: Counter[str] = Counter()
    for record in short:
        reasons.update(record.rejected)
    got = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    hint = f"raise pairs.tries (what was found is kept in {folder}), or change pairs.strength in another folder"
    raise DuoError(problem, got=f"rejected most often for: {got}", hint=hint)
