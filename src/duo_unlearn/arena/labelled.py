"""What people's labels say of a run's judges: how often each errs, and DSR corrected for that.

Labels are drawn from the attempts that a DSR is of, at random or by a judge's verdict.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from ..errors import DuoError
from ..metrics.estimate import Outcome
from ..metrics.judged import (
    Share,
    Tally,
    by_strata,
    combined,
    errors_by_strata,
    rogan_gladen,
    rogan_gladen_by_strata,
    wilson_share,
)
from ..metrics.labelling import kappa, majority
from ..records import CORRECTED, Attempt, Estimate, Source
from ..runs.folder import Run
from ..runs.labels import Label, read_labels
from ..runs.results import read_results
from ..runs.verdicts import Verdicts
from ..storage.files import sha256_of

LEAST: Final = 5
"""Labels of a group's own pictures by each verdict; fewer only where they are all that there is."""
LEAST_OF_ALL: Final = 10
"""Labels of each kind where those of other pictures are used too."""
TOO_FEW: Final = (
    f"too few labels: {LEAST} of its own pictures by each verdict, or {LEAST_OF_ALL} of each kind in the run"
)
USELESS: Final = "by the labels this judge is no better than chance"


class Mark(NamedTuple):
    """What people say of a picture: whether it has the concept. contract: whose verdict it was drawn by, or None."""

    yes: bool
    contract: str | None


class Errors:
    """One judge beside the labels. pool: the pictures that labels are drawn from, by hash."""

    def __init__(self, marks: Mapping[str, Mark], pool: Iterable[str], verdicts: Verdicts) -> None:
        self.contract = verdicts.contract
        known = {sha: verdicts.readings[sha].verdict for sha in pool if sha in verdicts.readings}
        self.broken = sum(known[sha].broken for sha in marks if sha in known)
        seen = {sha: verdict.detected for sha, verdict in known.items() if not verdict.broken}
        # A label that was drawn by another judge's word is no fair sample of what this one says.
        fair = {sha: m for sha, m in marks.items() if sha in seen and m.contract in (None, self.contract)}
        self.by_others = sum(sha in seen for sha in marks) - len(fair)
        self.by_verdict = any(mark.contract is not None for mark in fair.values())
        self.marks = {sha: mark.yes for sha, mark in fair.items()}
        self.pool = _tally(seen.values())
        said = [(seen[sha], yes) for sha, yes in self.marks.items()]
        self.if_seen, self.if_unseen = (_tally(yes for word, yes in said if word == one) for one in (True, False))
        self.of_yes, self.of_no = (_tally(word == yes for word, yes in said if yes == one) for one in (True, False))

    def corrected(
        self, source: Source, attempts: Sequence[Attempt], outcomes: Sequence[Outcome]
    ) -> tuple[list[Estimate], str | None]:
        """The DSR of a group of attempts corrected, or none and why. In a refused image no judge errs."""
        counted = [(str(a.sha256), o) for a, o in zip(attempts, outcomes, strict=True) if o.counts]
        pictures = [(sha, o.is_seen) for sha, o in counted if not o.refused]
        if not pictures:
            return [], None
        shown, how = self._shown(pictures)
        if shown is None or np.isnan(shown.value):
            return [], how if shown is None else USELESS
        drawn = wilson_share(Tally(len(pictures), len(counted)))
        dsr = combined(lambda part, yes: 1 - part * yes, [drawn, shown])
        value, low, high = map(float, dsr)
        return [Estimate.of(CORRECTED, source, value, low, high, len(counted), how)], None

    def _shown(self, pictures: Sequence[tuple[str, bool]]) -> tuple[Share | None, str]:
        """The share of a group's pictures with the concept, and by what method; or None, and why."""
        seen, words = _tally(word for _, word in pictures), dict(pictures)
        own = {sha: word for sha, word in words.items() if sha in self.marks}
        strata = [_tally(self.marks[sha] for sha, word in own.items() if word == one) for one in (True, False)]
        sizes = [sum(word == one for word in words.values()) for one in (True, False)]
        if all(stratum.n >= min(LEAST, size) for stratum, size in zip(strata, sizes, strict=True)):
            return by_strata(seen, *strata), f"strata, {len(own)} labels"
        kinds = (self.if_seen, self.if_unseen) if self.by_verdict else (self.of_yes, self.of_no)
        if min(kind.n for kind in kinds) < LEAST_OF_ALL:
            return None, TOO_FEW
        if self.by_verdict:
            shown = rogan_gladen_by_strata(seen, self.pool, *kinds)
            return shown, f"Rogan-Gladen by strata, {len(self.marks)} labels"
        return rogan_gladen(seen, *kinds), f"Rogan-Gladen, {len(self.marks)} labels"

    def as_json(self) -> dict[str, Any]:
        """For results.json: how often the judge is right, of pictures by what they show and by what it says."""
        if not self.by_verdict:
            both = wilson_share(self.of_yes), wilson_share(self.of_no)
        else:
            both = errors_by_strata(self.pool, self.if_seen, self.if_unseen)
        not_yes = self.if_unseen._replace(hits=self.if_unseen.n - self.if_unseen.hits)
        figures = {
            "sensitivity": _figure(both[0], self.of_yes.n),
            "specificity": _figure(both[1], self.of_no.n),
            "right_if_seen": _figure(wilson_share(self.if_seen), self.if_seen.n),
            "right_if_unseen": _figure(wilson_share(not_yes), not_yes.n),
        }
        drawn = "by verdict" if self.by_verdict else "at random"
        counts = {"labels": len(self.marks), "broken": self.broken, "drawn_by_others": self.by_others}
        return {"contract": self.contract, "drawn": drawn, **counts, **figures}


class Labelled:
    """The labels of a run. pool: the pictures that they are drawn from, by hash."""

    def __init__(self, labels: Sequence[Label], sha256: str, pool: Iterable[str]) -> None:
        self.labels, self.sha256, self.pool = labels, sha256, set(pool)
        self.judges: dict[str, Errors] = {}
        self.marks: dict[str, Mark] = {}
        self.left_out = {"tied": 0, "broken": 0, "of_other_pictures": 0}
        by_picture: dict[str, list[Label]] = {}
        for label in labels:
            by_picture.setdefault(label.sha256, []).append(label)
        for sha, given in by_picture.items():
            word = majority([label.label for label in given])
            contract = next((label.contract for label in given if label.contract is not None), None)
            if sha not in self.pool:
                self.left_out["of_other_pictures"] += 1
            elif word in ("yes", "no"):
                self.marks[sha] = Mark(word == "yes", contract)
            else:
                self.left_out["tied" if word is None else "broken"] += 1

    def beside(self, verdicts: Verdicts) -> Errors:
        """A judge's errors by the labels."""
        if verdicts.contract not in self.judges:
            self.judges[verdicts.contract] = Errors(self.marks, self.pool, verdicts)
        return self.judges[verdicts.contract]

    def as_json(self) -> dict[str, Any]:
        """For results.json: how far people agree, and each judge's errors. sha256: of labels.jsonl."""
        judges = [errors.as_json() for errors in self.judges.values() if errors.marks]
        pictures = {"pictures": len({label.sha256 for label in self.labels}), **self.left_out}
        return {"sha256": self.sha256, **pictures, "agreement": self._agreement(), "judges": judges}

    def _agreement(self) -> list[dict[str, Any]]:
        """Each two people, on the pictures that both labelled."""
        said: dict[str, dict[str, str]] = {}
        for label in self.labels:
            said.setdefault(label.labeller, {})[label.sha256] = label.label
        found = []
        for one, other in itertools.combinations(sorted(said), 2):
            shared = sorted(set(said[one]) & set(said[other]))
            words = [said[one][sha] for sha in shared], [said[other][sha] for sha in shared]
            if shared:
                same = sum(a == b for a, b in zip(*words, strict=True))
                found.append({"labellers": [one, other], "pictures": len(shared), "same": same, "kappa": kappa(*words)})
        return found


def read_labelled(run: Run, pool: Iterable[str]) -> Labelled | None:
    """The labels of a run; None where there are none."""
    labels = read_labels(run)
    return Labelled(labels, sha256_of(run.labels), pool) if labels else None


def results_are_old(run: Run) -> bool:
    """Whether results.json is missing or broken, or was made with other labels than there are now."""
    try:
        told = read_results(run).labels
    except DuoError:
        return True
    there = sha256_of(run.labels) if read_labels(run) else None
    return there != (told["sha256"] if told is not None else None)


def _tally(hits: Iterable[bool]) -> Tally:
    marks = list(hits)
    return Tally(sum(marks), len(marks))


def _figure(share: Share, n: int) -> dict[str, Any] | None:
    """A share with its interval and n for JSON; None of nothing."""
    return None if n == 0 else {name: float(value) for name, value in share._asdict().items()} | {"n": n}
