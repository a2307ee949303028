"""reproduction.md: what was published beside what was found, and the paper's table and figure, a β a row."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..concepts.captions import CAPTIONS
from ..experiments.sweep import is_panel
from ..records import is_share
from ..report.frontier import Figures, Point, frontier_plot
from ..storage.files import write_text
from .results import MEANINGS, Measured, Number, Reproduction, Row


def write_page(folder: Path, content: Reproduction) -> None:
    """Write FOLDER/reproduction.md, and a figure a concept where every β has a DSR and a preservation."""
    for concept in content.protocol.names:
        if points := points_of(content, concept):
            for suffix in ("png", "svg"):
                frontier_plot(points, "beta", folder / f"{figure_name(content, concept)}.{suffix}")
    write_text(folder / "reproduction.md", as_text(content))


def figure_name(content: Reproduction, concept: str) -> str:
    """PROTOCOL-CONCEPT: pages of several protocols may lie in one folder, and some share a concept."""
    return f"{content.protocol.name}-{concept}"


def verdict_line(content: Reproduction) -> str:
    """How many published numbers agree, in a line."""
    counts = Counter(row.verdict for row in content.rows)
    told = ", ".join(f"{verdict} {counts[verdict]}" for verdict in MEANINGS if counts[verdict])
    said = (
        f"{len(content.rows)} published numbers: {told}"
        if told
        else "no published number is at hand, so nothing was compared"
    )
    return f"{content.protocol.name}: {said}"


def as_text(content: Reproduction) -> str:
    """The page."""
    protocol = content.protocol
    source = (
        f"Source: {protocol.source}. Protocol `{protocol.name}`, SHA-256 `{content.protocol_sha256[:16]}`: "
        "the tolerances below are part of it, and it was written down before the first stage."
    )
    where = (
        f"Seed {content.seed}, model {content.model} (`{content.base[:16]}`), {content.machine}, {content.finished}."
    )
    lines = [f"# {protocol.title}", ""]
    for text in (source, where, f"{verdict_line(content)}."):
        lines += [_wrapped(text), ""]
    lines += _comparison(content.rows)
    for concept in protocol.names:
        by = f"DSR by {content.judges[0]}; the original's numbers are in the first row."
        lines += ["", f"## {concept}, a β a row", "", _wrapped(by), "", *_grid(content, concept)]
        if points_of(content, concept):
            lines += ["", f"![defence against preservation over β]({figure_name(content, concept)}.png)"]
    changes = [f"Setting {change}." for change in content.changes]
    if departures := [*protocol.departures, *changes]:
        lines += ["", "## What is not as it was published", "", *map(_point, departures)]
    if content.not_measured:
        lines += ["", "## What was not measured", "", *map(_point, _absences(content))]
    if content.files:
        lines += ["", "## Files of the user's", ""]
        lines += [_point(f"{one.role}: `{one.name}`, `{one.sha256}`") for one in content.files]
    return "\n".join(lines) + "\n"


def _absences(content: Reproduction) -> list[str]:
    """What was not measured, all of one reason together; a β is named where it does not hold at every one."""
    every = [f"β {beta:g}" for beta in content.protocol.betas]
    reasons: dict[str, dict[str, list[str]]] = {}
    for text in dict.fromkeys(content.not_measured):
        what, _, reason = text.partition(": ")
        beta, _, rest = what.partition(", ")
        known = reasons.setdefault(reason, {})
        if beta in every:
            known.setdefault(rest, []).append(beta)
        else:
            known[what] = every
    return [
        "; ".join(what if at == every else f"{' and '.join(at)}, {what}" for what, at in known.items()) + f": {reason}"
        for reason, known in reasons.items()
    ]


def _wrapped(text: str, indent: str = "") -> str:
    """A paragraph of lines of 100 columns at most."""
    return textwrap.fill(text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _point(text: str) -> str:
    return _wrapped(f"* {text}", "  ")


def _comparison(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    lines = ["| β | number | published | ours [95 % interval] | n | by | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        one = row.published
        of = f"{one.beta:g}" if one.beta is not None else "original"
        metric = f"{one.metric}, {_place(one.scenario, one.attack, one.preset)}" + (", change" if one.change else "")
        said = f"{_figure(one.metric, one.value)} ± {_figure(one.metric, one.tolerance)}"
        ours = _number(one.metric, row.ours) if row.ours is not None else "–"
        n, by = (str(row.ours.n), row.ours.contract) if row.ours is not None else ("", "")
        verdict = f"**{row.verdict}**" if row.verdict == "differs" else row.verdict
        lines.append(
            f"| {of} | {metric} | {said} | {ours} | {n} | {by} | {verdict}{': ' + row.reason if row.reason else ''} |"
        )
    used = {row.verdict for row in rows}
    meanings = (f"*{verdict}*: {text}." for verdict, text in MEANINGS.items() if verdict in used)
    return [*lines, "", *map(_point, meanings)]


def _place(scenario: str, attack: str | None, preset: str | None) -> str:
    return scenario if attack is None else f"{attack} ({preset})" + ("" if scenario == "direct" else f" on {scenario}")


def _figure(metric: str, value: float) -> str:
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:.4g}"


def _number(metric: str, one: Number | Measured) -> str:
    return f"{_figure(metric, one.value)} [{_figure(metric, one.low)}, {_figure(metric, one.high)}]"


def _columns(content: Reproduction, concept: str) -> list[tuple[str, str, str | None, str | None]]:
    """What the grid tells: preservation, FID and CLIP score of captions or keep prompts, and each DSR that heads."""
    there = [one for one in content.measured if one.concept == concept and one.beta is not None]
    kept = CAPTIONS if any(one.scenario == CAPTIONS for one in there) else "keep"
    found = [("prior preservation", "keep", None, None)]
    found += [(metric, kept, None, None) for metric in ("fid", "clip score")]
    dsr = [one for one in there if one.metric == "dsr" and one.contract == content.judges[0] and is_panel(one.attack)]
    return [*found, *dict.fromkeys(("dsr", one.scenario, one.attack, one.preset) for one in dsr)]


def _grid(content: Reproduction, concept: str) -> list[str]:
    columns = [
        c for c in _columns(content, concept) if any(_at(content, concept, b, *c) for b in content.protocol.betas)
    ]
    head = [f"{metric}, {_place(scenario, attack, preset)}" for metric, scenario, attack, preset in columns]
    lines = ["| β | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for beta in (None, *content.protocol.betas):
        found = [_at(content, concept, beta, *column) for column in columns]
        cells = [f"{_number(one.metric, one)}, n {one.n}" if one is not None else "–" for one in found]
        lines.append(f"| {'original' if beta is None else f'{beta:g}'} | " + " | ".join(cells) + " |")
    return lines


def _at(
    content: Reproduction, concept: str, beta: float | None, metric: str, scenario: str, attack: str | None,
    preset: str | None,
) -> Measured | None:  # fmt: skip
    for one in content.measured:
        same = (one.concept, one.beta, one.metric, one.scenario, one.attack, one.preset)
        if same == (concept, beta, metric, scenario, attack, preset) and (
            metric != "dsr" or one.contract == content.judges[0]
        ):
            return one
    return None


def points_of(content: Reproduction, concept: str) -> list[Point]:
    """The points of the paper's figure; none where a β lacks its preservation or any DSR."""
    dsr = [column for column in _columns(content, concept) if column[0] == "dsr"]
    points = []
    for beta in content.protocol.betas:
        kept = _at(content, concept, beta, "prior preservation", "keep", None, None)
        found = {_place(*column[1:]): _at(content, concept, beta, *column) for column in dsr}
        defence = {name: _figures(one) for name, one in found.items() if one is not None}
        if kept is None or not defence:
            return []
        points.append(Point(beta, _figures(kept), defence))
    return points


def _figures(one: Measured) -> Figures:
    return one.value, one.low, one.high, one.n
