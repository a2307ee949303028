"""The report: one HTML page that holds everything it shows, without a script and without the network."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import jinja2
from markupsafe import Markup, escape

from ..progress import clock
from ..records import CORRECTED
from ..runs.folder import Run
from ..storage.files import write_json, write_text
from .attacks import ATTACK_LIMIT, attack_pictures, attack_tables
from .certain import certain_words
from .curves import BUCKETS, curve_plots, held_out_note
from .dots import agreement_plots, attack_plot, defence_plot
from .figures import Plot
from .frontier import frontier_plots
from .html import environment_of
from .labels import label_table
from .pictures import LIMIT, Grid, grids, pair_cells
from .read import Contents, GroupAttempts, flatten, read_contents, readable
from .relearned_few import few_pictures_plot
from .relearning import relearning_plots
from .rounds import rounds_tables
from .tables import Table, blind_spots, gaps, table
from .tiles import cases, tiles
from .to_share import to_share, without_folder
from .verdict import attack_verdict, further_verdicts, verdict
from .words import awareness, figure, interval, metric_name, set_name, set_order

TEMPLATE: Final = "page.html.j2"
FEW: Final = 2
"""So few neighbours are not worth folding."""
NEIGHBOUR_NOTE: Final = (
    "A red frame here is a false positive of the detector, or the concept where nobody asked for it."
)
REFERENCES: Final = ("prior preservation", "lpips", "fid", "kid", "cmmd")
"""Metrics that are measured from the original's images."""
SAMPLING: Final = {"evaluate": True, "attack": False}
"""Stages that sample attempts, and whether they do so without an attack (and under an inverted token)."""


class Stage(NamedTuple):
    """A stage of the run and how long it took; None: not recorded."""

    name: str
    duration: str | None
    finished: str | None


def write_report(run: Run, *, images: bool = True) -> Path:
    """Write run.report and its data as run.report_data from the run folder alone, and give the page's path.

    images=False: run.report_to_share, the same page with counts in place of pictures and of the prompts under them.
    The same folder gives the same bytes. Parts that the run does not have are stated as absent; a file that is there
    but broken is a DuoError, and a picture that is missing, broken or another one is marked in its place.
    """
    contents = read_contents(run) if images else to_share(read_contents(run))
    values = _values(run, contents, images=images)
    target = run.report if images else run.report_to_share
    write_text(target, environment().get_template(TEMPLATE).render(values).lstrip())
    if images:
        write_json(run.report_data, _data(contents, values))
    return target


def _data(contents: Contents, values: dict[str, Any]) -> dict[str, Any]:
    """The page's words and numbers, for machines."""
    sentences = ("verdict", "attack_verdict", "further_verdicts", "certain", "machine_time")
    words = {name: values[name] for name in sentences}
    plain = ("concept", "model", "seed", "quick", "contract", "record", "sweeps", "labels")
    return {
        "version": 2,
        **words,
        **{name: getattr(contents, name) for name in plain},
        "systems": [system._asdict() for system in contents.systems],
        "estimates": [estimate.as_json() for estimate in contents.estimates],
        "absent": [entry._asdict() for entry in contents.absent],
        "settings": {setting.name: setting.value for setting in contents.settings},
        "untested": [gap._asdict() for gap in values["blind_spots"]],
        "rounds": [table.as_json() for table in values["rounds"]],
    }


@functools.cache
def environment() -> jinja2.Environment:
    """What renders the reports' pages."""
    return environment_of(
        __package__,
        ".",
        {
            "set_name": set_name,
            "metric_name": metric_name,
            "interval": interval,
            "figure_of": lambda e: figure(e.metric, e.value),
            "awareness": awareness,
            "clock": clock,
            # A long name of a system may be broken after each "+".
            "breakable": lambda name: Markup(str(escape(name)).replace("+", "+<wbr>")),
        },
    )


def _values(run: Run, contents: Contents, *, images: bool) -> dict[str, Any]:
    """What the template shows."""
    estimates = table(contents)
    tables = attack_tables(contents, estimates.contracts)
    agreement, rest = agreement_plots(contents)
    asking, others = _plain_grids(run, contents, LIMIT if images else 0)
    # What people labelled too little of is told in one sentence.
    lacking = [absent for absent in contents.absent if absent.metric != CORRECTED]
    attacks = [absent for absent in lacking if absent.attack is not None]
    relearned, rounds = relearning_plots(contents), rounds_tables(run)
    if not images:
        rounds = [one._replace(contracts=[without_folder(c) for c in one.contracts]) for one in rounds]
    return {
        "contents": contents,
        "images": images,
        # Without a word from the run, pictures are taken to be sensitive.
        "sensitive": contents.record.get("sensitive") is not False,
        "verdict": verdict(contents),
        "attack_verdict": attack_verdict(contents),
        "further_verdicts": further_verdicts(contents),
        "certain": certain_words(contents),
        "table": estimates,
        "folded": _folded(contents, estimates),
        "references": REFERENCES,
        "tiles": tiles(contents),
        "cases": cases(run, contents) if images else [],
        "interval_plots": _inline([defence_plot(contents), agreement]),
        "rest_plots": _inline([rest]),
        "labels": label_table(contents),
        "gaps": gaps([absent for absent in lacking if absent.attack is None]),
        "attack_tables": tables,
        "attack_plots": _inline([attack_plot(contents, tables), *relearned, few_pictures_plot(contents)]),
        "attack_gaps": gaps(attacks),
        "attack_pictures": attack_pictures(run, contents, ATTACK_LIMIT if images else 0),
        "frontiers": _inline(frontier_plots(contents.sweeps)),
        "asking_grids": asking,
        "other_grids": others,
        "neighbour_note": NEIGHBOUR_NOTE,
        "pairs": pair_cells(run, contents) if images else [],
        "dropped": sum(not pair.keep for pair in contents.pairs),
        "curves": {
            name: _inline(curve_plots(lines, f"curve-{i}")) for i, (name, lines) in enumerate(contents.curves.items())
        },
        "held_out": {name: held_out_note(lines) for name, lines in contents.curves.items()},
        "buckets": BUCKETS,
        "rounds": rounds,
        "stages": _stages(contents.record.get("stages")),
        "machine_time": _machine_time(contents.record.get("stages"), contents.groups),
        "provenance": flatten({k: v for k, v in contents.record.items() if k != "stages"}),
        "blind_spots": blind_spots(contents),
    }


def _folded(contents: Contents, estimates: Table) -> list[str]:
    """The neighbours' prompt sets, where they are many: what fell of them is plotted."""
    kinds = {one.group.scenario: one.kind for one in contents.groups}
    found = [section.scenario for section in estimates.sections if kinds.get(section.scenario) == "neighbour"]
    return found if len(found) > FEW else []


def _plain_grids(run: Run, contents: Contents, limit: int) -> tuple[list[Grid], list[Grid]]:
    """The grids without an attack: of prompts that ask for the concept, and of those that must go on working."""
    plain = [group for group in contents.groups if group.group.preset is None]
    asking: list[Grid] = []
    others: list[Grid] = []
    for grid, members in grids(run, contents, plain, limit):
        (asking if members[0].kind in ("attack", "plain") else others).append(grid)
    for kind in (asking, others):
        kind.sort(key=lambda grid: set_order(grid.scenario))
    return asking, others


def _inline(plots: Sequence[Plot | None]) -> list[dict[str, Any]]:
    # Only `figures.inline_svg` makes these, and it escapes every text.
    return [{"svg": Markup(plot.svg), "caption": plot.caption} for plot in plots if plot is not None]


def _machine_time(stages: Any, groups: Sequence[GroupAttempts]) -> str | None:
    """All that was recorded, of stages and attempts.

    A stage that samples attempts and these attempts are counted once: the longer of both, because a stage that was
    taken up again knows its last part alone, and attempts do not know how long they were judged.
    """
    entries = stages.items() if isinstance(stages, Mapping) else ()
    seconds = {
        str(name): float(entry["seconds"])
        for name, entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get("seconds"), int | float)
    }
    recorded = [group for group in groups if group.seconds is not None]
    if not seconds and not recorded:
        return None
    total = sum(spent for name, spent in seconds.items() if name not in SAMPLING)
    for name, plain in SAMPLING.items():
        here = [group.seconds or 0.0 for group in recorded if _is_of_evaluation(group) == plain]
        total += max(seconds.get(name, 0.0), sum(here))
    return clock(total)


def _is_of_evaluation(group: GroupAttempts) -> bool:
    return group.group.preset is None or group.group.attack == "concept-inversion"


def _stages(entries: Any) -> list[Stage]:
    if not isinstance(entries, Mapping):
        return []
    return [_stage(str(name), entry) for name, entry in entries.items()]


def _stage(name: str, entry: Any) -> Stage:
    if not isinstance(entry, Mapping):
        return Stage(name, None, readable(entry))
    seconds, finished = entry.get("seconds"), entry.get("finished")
    duration = clock(seconds) if isinstance(seconds, int | float) else None
    return Stage(name, duration, None if finished is None else readable(finished))
