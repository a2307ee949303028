"""The report: one HTML page that holds everything it shows, without a script and without the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import jinja2
from markupsafe import Markup

from ..progress import clock
from ..runs.folder import Run
from ..storage.files import write_json, write_text
from . import words as summary
from .attacks import SHOWN, Fought, attack_rows, attack_verdict, fought
from .figures import BUCKETS, Plot, agreement_plot, curve_plots, defence_plot
from .frontier import frontier_plots
from .pictures import LIMIT, grids, pair_cells
from .read import Contents, flatten, read_contents, readable, to_share
from .relearning import relearning_plot

TEMPLATE: Final = "page.html.j2"
NEIGHBOUR_NOTE: Final = (
    "A red frame here is a false positive of the detector, or the concept where nobody asked for it."
)


class Stage(NamedTuple):
    """A stage of the run and how long it took; None: not recorded."""

    name: str
    duration: str | None
    finished: str | None


def write_report(run: Run, *, images: bool = True) -> Path:
    """Write run.report and its data as run.report_data from the run folder alone, and give the page's path.

    images=False: run.report_to_share, the same page with counts in place of pictures and of the prompts under them.
    The same folder gives the same bytes. Parts that the run does not have are stated as absent; a file that is there
    but broken is a DuoError, and a picture that is missing or broken is marked in its place.
    """
    contents = read_contents(run) if images else to_share(read_contents(run))
    values = _values(run, contents, images=images)
    target = run.report if images else run.report_to_share
    write_text(target, _environment().get_template(TEMPLATE).render(values).lstrip())
    if images:
        write_json(run.report_data, _data(contents, values))
    return target


def _data(contents: Contents, values: dict[str, Any]) -> dict[str, Any]:
    """The page's words and numbers, for machines."""
    words = {name: values[name] for name in ("verdict", "attack_verdict", "machine_time")}
    known = ("concept", "model", "seed", "quick", "attacks", "record", "sweeps")
    return {
        "version": 1,
        **words,
        **{name: getattr(contents, name) for name in known},
        "estimates": [estimate.as_json() for estimate in contents.estimates],
        "settings": {setting.name: setting.value for setting in contents.settings},
        "untested": [name for name, _ in values["untested"]],
        "missing": [entry._asdict() for entry in values["missing"]],
    }


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "set_name": summary.set_name,
        "metric_name": summary.metric_name,
        "interval": summary.interval,
        "figure_of": lambda e: summary.figure(e.metric, e.value),
    }
    return environment


def _values(run: Run, contents: Contents, *, images: bool) -> dict[str, Any]:
    """What the template shows."""
    table = summary.table(contents.estimates)
    attacked_rows = attack_rows(contents.attacks, run.attack_results)
    all_grids = grids(run, contents, LIMIT if images else 0)
    battles = fought(run, contents.attacks, SHOWN if images else 0)
    attacked = {*summary.ATTACK_SETS, *(e.prompts for e in contents.estimates if e.metric == "dsr")}
    attack_grids = [grid for grid in all_grids if grid.prompts in attacked]
    defence, agreement = defence_plot(contents.estimates), agreement_plot(contents.estimates)
    return {
        "contents": contents,
        # Without a word from the run, pictures are taken to be sensitive.
        "images": images,
        "sensitive": contents.record.get("sensitive") is not False,
        "verdict": summary.verdict(contents),
        "attack_verdict": attack_verdict(attacked_rows),
        "attack_rows": attacked_rows,
        "fought": battles,
        "clock": clock,
        "frontiers": [_marked(plot) for plot in frontier_plots(contents.sweeps)],
        "machine_time": _machine_time(contents.record.get("stages"), battles),
        "relearned": _marked(curve) if (curve := relearning_plot(attacked_rows)) else None,
        "attacks_absent": contents.attacks.get("absent", []),
        "table": table,
        "interval_plots": [_marked(plot) for plot in (defence, agreement) if plot is not None],
        "attack_grids": attack_grids,
        "other_grids": [grid for grid in all_grids if grid not in attack_grids],
        "neighbour_note": NEIGHBOUR_NOTE,
        "pairs": pair_cells(run, contents) if images else [],
        "dropped": sum(not pair.keep for pair in contents.pairs),
        "curves": [_marked(plot) for plot in curve_plots(contents.curves)],
        "buckets": BUCKETS,
        "limit": LIMIT,
        "stages": _stages(contents.record.get("stages")),
        "provenance": flatten({k: v for k, v in contents.record.items() if k != "stages"}),
        "untested": summary.untested_attacks(contents.estimates, [row.attack for row in attacked_rows]),
        "missing": summary.missing_sets(contents),
    }


def _marked(plot: Plot) -> dict[str, Any]:
    # Only `figures.inline_svg` makes these, and it escapes every text.
    return {"svg": Markup(plot.svg), "caption": plot.caption}


def _machine_time(stages: Any, battles: Sequence[Fought]) -> str | None:
    """All that was recorded, of stages and attacks."""
    entries = stages.values() if isinstance(stages, Mapping) else ()
    seconds = [e["seconds"] for e in entries if isinstance(e, Mapping) and isinstance(e.get("seconds"), int | float)]
    seconds += [battle.seconds for battle in battles if battle.seconds is not None]
    return clock(sum(seconds)) if seconds else None


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
