"""What people's labels say of a run's judges, in a report: how often each is right, and how far people agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ..records import CORRECTED
from .read import Contents
from .words import PERCENT, figure

KINDS: Final = {
    "sensitivity": "Seen, of those with the concept",
    "specificity": "Not seen, of those without",
    "right_if_seen": "Right where it sees it",
    "right_if_unseen": "Right where it does not",
}

LEFT_OUT: Final = {
    "tied": "on which opinions are divided",
    "broken": "that people call broken",
    "of_other_pictures": "that no DSR here is of",
}


class JudgeRow(NamedTuple):
    """A judge. labels: how many pictures it is compared on. cells: in order of KINDS."""

    contract: str
    labels: int
    cells: list[str]


class LabelTable(NamedTuple):
    """A sentence on the labels, and a row a judge."""

    words: str
    kinds: list[str]
    judges: list[JudgeRow]


def label_table(contents: Contents) -> LabelTable | None:
    """The judges beside people's labels; None where nobody labelled. Nobody is named: a page may be shared."""
    told = contents.labels
    if told is None:
        return None
    rows = [
        JudgeRow(judge["contract"], judge["labels"], [_cell(judge[kind]) for kind in KINDS]) for judge in told["judges"]
    ]
    return LabelTable(_words(contents, told), list(KINDS.values()), rows)


def _words(contents: Contents, told: Mapping[str, Any]) -> str:
    sentences = [f"People labelled {told['pictures']} pictures."]
    for pair in told["agreement"]:
        chance = "" if pair["kappa"] is None else f" (Cohen's κ {pair['kappa']:.2f})"
        sentences.append(f"Two of them agree on {pair['same']} of {pair['pictures']}{chance}.")
    left = [f"{told[key]} {why}" for key, why in LEFT_OUT.items() if told[key]]
    sentences += [f"Left out: {', '.join(left)}."] if left else []
    by_verdict = {judge["drawn"] for judge in told["judges"]} == {"by verdict"}
    sentences += ["Labels were drawn by the judge's verdict, and are weighed."] if by_verdict else []
    lacking = sum(absent.metric == CORRECTED for absent in contents.absent)
    sentences += [f"{lacking} rates have too few labels to be corrected, and are the judge's."] if lacking else []
    return " ".join(sentences)


def _cell(share: Mapping[str, Any] | None) -> str:
    if share is None:
        return "no label"
    within = f"{100 * share['low']:.1f} to {100 * share['high']:.1f}{PERCENT}"
    return f"{figure('', share['value'])}, {within}, n = {share['n']}"
