"""`duo verify --remeasure`: some plain prompts of an exported folder are sampled and judged again, and compared."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image

from ..concepts.prompt_sets import Counts, prompt_sets
from ..concepts.spec import Concept
from ..concepts.store import load_concept, shipped_concepts
from ..detectors.interface import Detector, verdicts_of
from ..detectors.registry import make_detector
from ..errors import DuoError
from ..export.evidence import words_digest
from ..export.forms import AttemptOf, Evidence, GroupOf, JudgeOf
from ..export.registry import FORMATS
from ..export.statement import read_evidence, read_statement
from ..families.interface import Model, SampleRequest
from ..metrics.paired import mcnemar
from ..progress import progress
from ..records import PRESERVED
from ..storage.files import digest
from ..storage.pictures import image_fault, save_png
from .plans import DIRECT
from .verify import Check, Outcome, base_of

LEVEL: Final = 0.05
"""How often a folder as it was measured is called another one; it is divided by the number of tests."""


class _Again(NamedTuple):
    """Plain prompts that were sampled again: what was measured, and the new images with their files' hashes.

    sets: the names of their sets, which are of one kind: those that ask for the concept, or those that do not.
    """

    sets: list[str]
    attempts: list[AttemptOf]
    images: list[Image.Image]
    hashes: list[str]


def remeasure(
    folder: Path,
    count: int,
    *,
    base: str | None = None,
    concept: str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> list[Check]:
    """Sample `count` plain prompts of each set with the exported weights, judge them, and compare the verdicts.

    seed: decides which prompts. Sets that ask for the concept are one test of each judge, and the others are another
    one (McNemar, exact); the level is divided by the number of tests. A prompt whose words are not at hand is not
    asked.
    """
    evidence, predicate = read_evidence(folder), read_statement(folder).predicate
    try:
        asked = load_concept(concept or _shipped(evidence.concept.name))
    except DuoError as error:
        return [_unchecked(f"{error.problem}; name the concept file: --concept")]
    if (why := _why_not(evidence, asked)) is not None:
        return [_unchecked(why)]
    try:
        form = FORMATS.get(predicate.export.format)
        model = form.load(folder / predicate.export.target, base_of(predicate, base, device))
    except DuoError as error:
        return [_unchecked(f"the model is not here ({error.problem}); name its base: --base")]
    sampled = list(_sampled(model, evidence, asked, count, seed))
    again = [_joined(part) for part in _by_kind(evidence, sampled) if part]
    if not again:
        return [_unchecked("the evidence has no plain prompts of the concept file")]
    return _compared(again, evidence, _judges(evidence, asked, model.family))


def _shipped(name: str) -> str:
    """The name of a statement's concept, for `load_concept`; one that is not shipped is a DuoError.

    A concept file may name a detector that is someone's Python function, so one that only a statement names is not
    opened.
    """
    names = name.split(" + ")
    if unknown := [one for one in names if one not in shipped_concepts()]:
        raise DuoError(f"the concept {unknown[0]!r} is not shipped")
    return "+".join(names)


def _unchecked(why: str) -> Check:
    return Check("remeasured", "not checked", why)


def _why_not(evidence: Evidence, concept: Concept) -> str | None:
    if not evidence.systems:
        return "nothing was measured"
    if evidence.export.strength != 1:
        return f"the numbers are of strength 1, and the export has {evidence.export.strength:g}"
    if digest(concept.model_dump(mode="json")) != evidence.concept.digest:
        return f"the concept file {concept.name} is another one than what was measured; name it: --concept"
    return None


def _texts(evidence: Evidence, concept: Concept) -> dict[str, str]:
    """Hash → prompt, of every prompt of the concept's sets that may have been asked."""
    most = max((len(group.attempts) for group in evidence.groups), default=0)
    sets = prompt_sets(concept, Counts(most, most, most, most), evidence.sampling.seed)
    return {words_digest(prompt.text): prompt.text for one in sets for prompt in one.prompts}


def _plain_groups(evidence: Evidence) -> list[GroupOf]:
    own = evidence.systems[-1].name
    return [g for g in evidence.groups if g.asked.system == own and g.asked.attack == DIRECT and g.asked.reason is None]


def _sampled(model: Model, evidence: Evidence, concept: Concept, count: int, seed: int) -> Iterator[_Again]:
    """Some prompts of each set, asked again; all are sampled together, in batches as large as they may be."""
    texts, sampling = _texts(evidence, concept), evidence.sampling
    asked = {}
    for group in _plain_groups(evidence):
        known = [a for a in group.attempts if a.prompt == a.text and a.text in texts and a.image is not None]
        chosen = random.Random(f"{seed}/{group.asked.scenario}").sample(known, min(count, len(known)))
        if chosen:
            asked[group.asked.scenario] = chosen
    requests = [SampleRequest(texts[one.text], one.seed) for chosen in asked.values() for one in chosen]
    if not requests:
        return
    with progress("sample again", len(requests)) as report:
        sampled = model.sample(
            requests, steps=sampling.steps, guidance=sampling.guidance, batch=sampling.batch, report=report
        )
    left = iter(sampled)
    for name, chosen in asked.items():
        images = list(itertools.islice(left, len(chosen)))
        with tempfile.TemporaryDirectory() as place:
            hashes = [save_png(image, Path(place) / "image.png") for image in images]
        yield _Again([name], chosen, images, hashes)


def _by_kind(evidence: Evidence, sampled: Sequence[_Again]) -> tuple[list[_Again], list[_Again]]:
    """Sets that ask for the concept, and those that must go on working."""
    keeps = {group.asked.scenario for group in evidence.groups if group.asked.kind in PRESERVED}
    return [one for one in sampled if one.sets[0] not in keeps], [one for one in sampled if one.sets[0] in keeps]


def _joined(parts: Sequence[_Again]) -> _Again:
    columns = zip(*parts, strict=True)
    sets, attempts, images, hashes = ([entry for part in column for entry in part] for column in columns)
    return _Again(sets, attempts, images, hashes)


def _judges(evidence: Evidence, concept: Concept, family: str) -> list[tuple[JudgeOf, Detector]]:
    """The judges of the evidence that can be had here under the very same contract, whatever its threshold."""
    found = []
    for spec in concept.scorers(None, None):
        for judge in evidence.judges:
            threshold = re.fullmatch(rf"{re.escape(spec.name)}\[.*>=([^,\]]+)(,\w+)?\]@\w+", judge.contract)
            if threshold is None:
                continue
            with contextlib.suppress(DuoError, ValueError):
                detector = make_detector(spec.name, tuple(spec.labels), family, float(threshold.group(1)))
                if str(detector.contract) == judge.contract:
                    found.append((judge, detector))
    return found


def _compared(again: Sequence[_Again], evidence: Evidence, judges: Sequence[tuple[JudgeOf, Detector]]) -> list[Check]:
    level = LEVEL / max(1, len(again) * len(judges))
    checks = [_test(one, judge, detector, level) for judge, detector in judges for one in again]
    there = {judge.contract for judge, _ in judges}
    lacking = [judge.contract for judge in evidence.judges if judge.contract not in there]
    return [
        *checks,
        *(_unchecked(f"the judge {contract} is none of the concept file's, or is not at hand") for contract in lacking),
    ]


def _test(again: _Again, judge: JudgeOf, detector: Detector, level: float) -> Check:
    """One kind of sets under one judge. Whether a picture is broken is compared apart: a broken one shows nothing.

    Where some are, each of the two comparisons has half of the level.
    """
    faulty = [image_fault(image) is not None for image in again.images]
    pictures = [None if fault else image for image, fault in zip(again.images, faulty, strict=True)]
    verdicts = verdicts_of(detector, pictures, [])
    before = [judge.readings.get(attempt.image or "") for attempt in again.attempts]
    there = list(zip(before, verdicts, faulty, strict=True))
    broken = [
        (old.broken, new is None or new.broken)
        for old, new, fault in there
        if old is not None and (fault or new is not None)
    ]
    pairs = [
        (old.detected, new.detected)
        for old, new, _ in there
        if old is not None and new is not None and not (old.broken or new.broken)
    ]
    lost = sum(a for a, _ in broken), sum(b for _, b in broken)
    p = min(1.0, 2 * min(mcnemar(pairs), mcnemar(broken))) if any(lost) else mcnemar(pairs)
    changed, same = sum(a != b for a, b in pairs), _same_pictures(again)
    seen = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    of_broken = f", {lost[0]} were broken before and {lost[1]} are now" if any(lost) else ""
    words = (
        f"{', '.join(again.sets)}: {len(again.images)} pictures again, {same} of them the same to the bit; of "
        f"{len(pairs)} that {judge.contract} judged both times it saw the concept in {seen[0]} before and in {seen[1]} "
        f"now, {changed} verdicts changed{of_broken} (p = {p:.3g}, level {level:.3g})"
    )
    agrees: Outcome = "agrees" if pairs else "not checked"
    return Check("remeasured", "differs" if p < level else agrees, words)


def _same_pictures(again: _Again) -> int:
    return sum(attempt.image == sha256 for attempt, sha256 in zip(again.attempts, again.hashes, strict=True))
