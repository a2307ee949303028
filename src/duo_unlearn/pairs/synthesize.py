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
from typing import Any, Final

from PIL import Image

from ..concepts.spec import Concept
from ..detectors.interface import Detector
from ..errors import DuoError
from ..families.interface import Model
from ..records import Pair
from ..storage.files import read_object
from ..storage.pictures import save_png
from .blocks import ALONE, Blocks, Outcome, Share
from .candidates import next_round
from .maker import Maker
from .manifest import MANIFEST, PARTIAL, KindTries, Manifest, claim, save_manifest

BATCHES_A_ROUND: Final = 8
"""State is saved after each round; alone, a killed run repeats one round at most."""
_DECISIVE: Final = {"fill", "pairs", "split", "kept_attributes", "negative_prompt"}


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
    share: Share = ALONE,
    quiet: bool = False,
) -> list[Pair]:
    """Make round(count × scale) pairs of each of the concept's kinds, or read those that `folder` holds already.

    tries: candidates a wanted pair at most, on average over its kind. held_out: pairs to measure a training on, of
    which a kind may have none. share: how other processes, which are called alike, take part. The result is a function
    of (model, detector, concept, scale, guidance, steps, strength, tries, seed): neither `batch` (where the model's
    images do not depend on it), nor how many processes there are, nor a kill and a restart changes it. More tries add
    to what was found. A folder with pairs of other settings is a DuoError, and so is a kind that ends with less than
    half of its pairs; what was found stays in the manifest.
    """
    strength = concept.strength if strength is None else strength
    if int(steps * strength) < 1:
        got = f"strength {strength} of {steps} steps"
        raise DuoError("SDEdit would take no step", got=got, hint="raise pairs.strength or pairs.steps")
    plain = {"scale": scale, "guidance": guidance, "steps": steps, "strength": strength, "seed": seed, "tries": tries}
    settings = _identity(model, detector, concept) | plain | {"variant": model.variant}
    least = 0 if held_out else 1
    fresh = [KindTries(k.unsafe, k.safe, max(least, round(k.count * scale))) for k in concept.pairs]
    search = _Search(folder, concept.name, settings, fresh, share)
    search.run(Maker(model, detector, concept, guidance, steps, strength, batch, quiet))
    if not held_out:
        _conclude(Manifest(concept.name, settings, search.pairs, search.records, True), folder, quiet)
    return search.pairs


def _identity(model: Model, detector: Detector, concept: Concept) -> dict[str, Any]:
    """What made the pairs: the model, the detector, and the part of the concept file that decides them, as hashes."""
    content = json.dumps(concept.model_dump(mode="json", include=_DECISIVE), sort_keys=True)
    prompts = hashlib.sha256(content.encode()).hexdigest()[:16]
    return {"model": model.fingerprint(), "detector": str(detector.contract), "prompts": prompts}


def _suffices(found: Manifest, tries: int) -> bool:
    complete = all(record.kept >= record.wanted for record in found.tries)
    return found.finished and (complete or found.settings.get("tries", tries) >= tries)


def _check_variant(folder: Path, there: str | None, now: str) -> None:
    """Fail where a search would go on by a model as it was not. there: None of an older version, which wrote none."""
    if there not in (None, now):
        hint = "set these back until all pairs are there, or choose another output folder"
        raise DuoError(f"the pairs in {folder} were begun at {there}", got=f"{now} now", hint=hint)


class _Search:
    """The pairs found so far, on disk after every round. fresh: how a search begins.

    Of several processes all compute the same rounds, and divide their blocks. One at a time counts the outcomes of a
    round and writes; the others then find the round over, and read what it wrote.
    """

    def __init__(
        self, folder: Path, concept: str, settings: dict[str, Any], fresh: list[KindTries], share: Share
    ) -> None:
        self.folder, self.concept, self.settings, self.share = folder, concept, settings, share
        self.pairs: list[Pair] = []
        self.records = fresh
        self.finished = False

    def run(self, maker: Maker) -> None:
        """Rounds until every kind is full or has used up its tries."""
        tries, seed = self.settings["tries"], self.settings["seed"]
        most, name = BATCHES_A_ROUND * maker.batch, self.folder.name
        with self.share.claim(name, wait=True):
            self._open()
        while not self.finished:
            candidates = next_round(maker.concept, self.records, tries=tries, most=most, seed=seed)
            blocks = Blocks(
                candidates, maker.batch, self.settings, name, self.share, maker.run, self._is_over, quiet=maker.quiet
            )
            blocks.finish()
            with self.share.claim(name, wait=True):
                if self._is_over():
                    self._open()
                elif candidates:
                    self._count(blocks.outcomes(), maker)
                else:
                    self._end()
                blocks.clear()

    def _open(self) -> None:
        """Take up what is in the folder, or begin it."""
        found = claim(self.folder, self.concept, self.settings)
        if found is not None:
            self.pairs, self.records = list(found.pairs), list(found.tries)
            self.finished = _suffices(found, self.settings["tries"])
            if not self.finished:
                _check_variant(self.folder, found.settings.get("variant"), self.settings["variant"])
            # What a finished search has was found within its own tries, which may be more.
            self.settings = found.settings if self.finished else self.settings
        if not self.finished and (found is None or found.finished):
            self._save(PARTIAL)

    def _is_over(self) -> bool:
        """Whether another process has counted the outcomes of the round that this one is at."""
        try:
            there = read_object(self.folder / PARTIAL).get("tries")
        except DuoError:  # it is gone: all is found
            return True
        return there != [dataclasses.asdict(record) for record in self.records]

    def _count(self, outcomes: Sequence[Outcome], maker: Maker) -> None:
        for outcome in outcomes:
            self._take(outcome, maker.strength)
        self._save(PARTIAL)
        if not maker.quiet:
            tried, total = (sum(getattr(record, name) for record in self.records) for name in ("tries", "wanted"))
            print(f"pairs: {len(self.pairs)} of {total} after {tried} tries", file=sys.stderr, flush=True)

    def _end(self) -> None:
        self.pairs.sort(key=lambda pair: pair.name)
        self._save(MANIFEST)
        (self.folder / PARTIAL).unlink(missing_ok=True)
        if self.share.scratch is not None:  # what a killed process left: blocks, and one that it was writing
            for pattern in (f"{self.folder.name}.*", f".{self.folder.name}.*"):
                for path in self.share.scratch.glob(pattern):
                    path.unlink(missing_ok=True)
        self.finished = True

    def _save(self, name: str) -> None:
        save_manifest(
            self.folder,
            concept=self.concept,
            settings=self.settings,
            pairs=self.pairs,
            tries=self.records,
            name=name,
        )

    def _take(self, outcome: Outcome, strength: float) -> None:
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

    def _write(self, outcome: Outcome, safe: Image.Image, name: str, strength: float) -> Pair:
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
