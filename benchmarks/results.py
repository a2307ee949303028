"""The mini model, erased and attacked: forms of DUO with three seeds → docs/results.json, docs/results-tables.md.

python benchmarks/results.py                            # a day on 2 cores; what is done is skipped, so it resumes
python benchmarks/results.py --concept sword --form recommended --seed 1 --attack p4d      # a part; writes nothing
python benchmarks/results.py --write                    # docs/ from what is there

A seed decides pairs, training, prompts and noise. Counts of all seeds are added up, and each seed's stands beside them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from arena_settings import PAPER_FORM
from pages import fill

import duo_unlearn as duo
from duo_unlearn.arena.attempts import make_attempts
from duo_unlearn.arena.plans import AttackPlan, attack_plans
from duo_unlearn.arena.sharing import share_originals, share_pairs
from duo_unlearn.arena.stages import judge
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.interval import wilson
from duo_unlearn.records import ORIGINAL, Estimate, is_share
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.machine import keep_freed_memory
from duo_unlearn.runs.results import WORST, estimate_of, read_results
from duo_unlearn.session import Session, machine
from duo_unlearn.storage.files import write_text

SEEDS: Final = (0, 1, 2)
FORMS: Final[dict[str, dict[str, Any]]] = {
    "recommended": {},
    "paper": {f"train.{key}": value for key, value in PAPER_FORM.items()},
}
"""What a run sets beside what the concept file recommends.

paper: its loss and its empty prompt, and the β that does best of those in docs/notes/mini-sweep.md.
"""
CONCEPTS: Final = ("sword", "balloon")
PAPER: Final = (
    "ring-a-bell", "concept-inversion", "unlearndiffatk", "sneakyprompt", "p4d", "p4d-detector", "p4d-k"
)  # fmt: skip
"""Searches, run with their published budgets."""
NEVER_STOP: Final = ("p4d", "p4d-k")
"""Searches that take all of their steps, whatever they have found."""
QUICK: Final = tuple(name for name in ATTACKS.names() if name.startswith(("image-to-image", "relearning", "edit-")))
"""Attacks that have one budget."""
PROMPTS: Final = 16
"""Prompts that are attacked with each seed."""
COUNTS: Final = {"prompts": 100, "keep_prompts": 100, "neighbour_prompts": 50, "inversion_prompts": 0}
"""Prompts of each set with each seed: three seeds have three times as many."""
JUDGES: Final = {"mini-judge-b": "B", "mini-judge": "A"}
SHOWN: Final = ("prior preservation", "lpips", "fid", "kid", "cmmd", "clip score")
DOCS: Final = Path(__file__).parents[1] / "docs"
BEGIN: Final = "<!-- figures: python benchmarks/results.py -->"


class Row(NamedTuple):
    """An estimate of one run. form: a key of FORMS, or the original."""

    concept: str
    form: str
    seed: int
    estimate: Estimate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/results"), help="holds a run folder a form and seed")
    parser.add_argument("--concept", action="append", choices=CONCEPTS)
    parser.add_argument("--form", action="append", choices=FORMS)
    parser.add_argument("--seed", type=int, action="append", choices=SEEDS)
    parser.add_argument("--attack", action="append", choices=("none", *QUICK, *PAPER), help="none: erase and measure")
    parser.add_argument("--write", action="store_true", help="docs/ from what is there, and run nothing")
    given = parser.parse_args()
    keep_freed_memory()  # as `duo` does
    attacks = given.attack or ["none", *QUICK, *PAPER]
    for concept in [] if given.write else given.concept or CONCEPTS:
        for seed in given.seed or SEEDS:
            for form in given.form or FORMS:
                one_run(given.runs, concept, form, seed, attacks if concept == CONCEPTS[0] else ["none"])
    if given.write or not (given.concept or given.form or given.seed or given.attack):
        write_pages(given.runs)


def folder_of(runs: Path, concept: str, form: str, seed: int) -> Path:
    """The run folder of a form and a seed."""
    return runs / f"{concept}-{form}-{seed}"


def one_run(runs: Path, concept: str, form: str, seed: int, attacks: Sequence[str]) -> None:
    """Erase, measure and attack; the seed's pairs and the original's images are shared with the form that has them."""
    folders = {name: folder_of(runs, concept, name, seed) for name in FORMS}
    counts = {f"evaluate.{key}": value for key, value in COUNTS.items()}
    run = duo.open_run(folders[form], concept=concept, settings={**FORMS[form], **counts, "seed": seed})
    for name, folder in folders.items():
        if name != form and Run(folder).results.exists():
            share_pairs(Run(folder), run.run, "duo")
            share_originals(Run(folder), run.run)
    if "none" in attacks:
        duo.erase(run, say=print)
    elif not run.run.results.exists():  # several parts of one run may be made at once
        duo.make_pairs(run, say=print)
        duo.train(run, say=print)
    if chosen := [name for name in QUICK if name in attacks]:
        duo.attack(run, chosen, prompts=PROMPTS, say=print)
    if chosen := [name for name in PAPER if name in attacks and name not in NEVER_STOP]:
        duo.attack(run, chosen, preset="paper", prompts=PROMPTS, say=print)
    if chosen := [name for name in NEVER_STOP if name in attacks]:
        attack_edit_alone(run, chosen)


def attack_edit_alone(run: Session, names: Sequence[str]) -> None:
    """Attack the edited model and not the original, which shows the sword under every direct prompt by itself."""
    with run.run.lock(shared=True):
        make_attempts(run, attack_plans(run, [run.systems()[-1]], AttackPlan(names, "paper", PROMPTS)))
        judge(run)


def write_pages(runs: Path) -> None:
    """Write results.json and the tables from the run folders, and from results.json what they do not hold."""
    rows = with_earlier(list(rows_of(runs)))
    estimates = [{"concept": r.concept, "form": r.form, "seed": r.seed} | r.estimate.as_json() for r in rows]
    head = {"version": 3, "model": "mini", "machine": machine(), "seeds": SEEDS, "forms": FORMS}
    # A line an estimate: shorter by half than an indented file, and its changes can be read.
    lines = ",\n".join(json.dumps(estimate, ensure_ascii=False) for estimate in estimates)
    write_text(DOCS / "results.json", f'{json.dumps(head)[:-1]}, "estimates": [\n{lines}\n]}}\n')
    fill(DOCS / "results-tables.md", BEGIN, tables(rows))


def with_earlier(rows: Sequence[Row]) -> list[Row]:
    """The rows of results.json, those that were measured anew in their place; none of another contract of a judge.

    A processor that rounds otherwise trains another edit from the same seed; what stands side by side of two is told.
    The worst case over attacks is left out: no run folder need hold all of them.
    """
    found: dict[object, Row] = {}
    contracts = {_name(row.estimate): row.estimate.contract for row in rows}
    for e in json.loads((DOCS / "results.json").read_text(encoding="utf-8"))["estimates"]:
        row = Row(e.pop("concept"), e.pop("form"), e.pop("seed"), estimate_of(e))
        if contracts.get(_name(row.estimate), row.estimate.contract) == row.estimate.contract:
            found[(*row[:3], row.estimate.of_what)] = row
    found |= {(*row[:3], row.estimate.of_what): row for row in rows}
    edits: dict[tuple[str, str, int], set[str]] = {}
    for row in found.values():
        edits.setdefault(row[:3], set()).add(row.estimate.sha256[:8])
    for (concept, form, seed), hashes in edits.items():
        if len(hashes) > 1:
            print(f"{concept}, {form}, seed {seed}: the rows are of {len(hashes)} edits, {', '.join(sorted(hashes))}")
    return [row for row in found.values() if row.estimate.attack != WORST]


def rows_of(runs: Path) -> Iterable[Row]:
    """Every estimate of every run; the original's once a seed."""
    for concept in CONCEPTS:
        for seed in SEEDS:
            seen: set[object] = set()
            for form in FORMS:
                run = Run(folder_of(runs, concept, form, seed))
                for e in read_results(run).estimates if run.results.exists() else []:
                    if e.system != ORIGINAL:
                        yield Row(concept, form, seed, e)
                    elif (place := (e.metric, e.scenario, e.attack, e.preset, e.contract)) not in seen:
                        seen.add(place)
                        yield Row(concept, ORIGINAL, seed, e)


def tables(rows: Sequence[Row]) -> str:
    """All tables, as Markdown."""
    parts = []
    for concept in CONCEPTS:
        mine = [row for row in rows if row.concept == concept]
        asked = [row for row in mine if row.estimate.metric == "dsr"]
        broken = broken_rows(mine)
        agreed = [row for row in mine if row.estimate.metric.endswith(" agreement")]
        plain = [row for row in mine if row.estimate.metric in SHOWN and row.estimate.attack is None]
        parts += [
            f"### {concept}: DSR without attack\n\n{_shares(_plain(asked), _scenario)}",
            f"### {concept}: DSR under attack\n\n{_shares(_attacked(asked), _attack)}",
            f"### {concept}: broken, of all that were judged\n\n{_shares(_plain(broken), _scenario)}",
            f"### {concept}: what must stay shows what was asked\n\n{_shares(_plain(agreed), _agreement)}",
            f"### {concept}: what must stay, compared with the original's images\n\n{_numbers(plain)}",
        ]
    return "\n\n".join(part for part in parts if not part.endswith("\n\n"))


def broken_rows(rows: Sequence[Row]) -> list[Row]:
    """The share of broken pictures wherever pictures were judged; an estimate of it is there only where some are."""
    found: dict[object, Row] = {}
    for row in rows:
        e = row.estimate
        place = (row.form, row.seed, e.scenario, e.attack, e.preset, e.contract)
        if e.metric == "broken":
            found[place] = row
        elif e.metric in ("dsr", "detected"):
            whole = dataclasses.replace(e, metric="broken", value=0.0)
            found.setdefault(place, row._replace(estimate=whole))
    return list(found.values())


def _plain(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.estimate.attack is None]


def _attacked(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.estimate.attack is not None]


def _scenario(e: Estimate) -> str:
    return e.scenario


def _attack(e: Estimate) -> str:
    return f"{e.attack}, {e.scenario} ({e.preset})"


def _agreement(e: Estimate) -> str:
    return f"{e.scenario}: {e.metric.removesuffix(' agreement')}"


def _columns(rows: Sequence[Row]) -> list[str]:
    return [form for form in (ORIGINAL, *FORMS) if any(row.form == form for row in rows)]


def _table(rows: Sequence[Row], name: Callable[[Estimate], str], cell: Callable[[Sequence[Row]], str]) -> str:
    columns, names = _columns(rows), sorted({name(row.estimate) for row in rows})
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for what in names:
        of_it = [row for row in rows if name(row.estimate) == what]
        cells = [cell([row for row in of_it if row.form == column]) for column in columns]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines) if names else ""


def _shares(rows: Sequence[Row], name: Callable[[Estimate], str]) -> str:
    """Judge B's share of all seeds with its interval and n, each seed's, and A's share."""

    def pooled(some: Sequence[Row], judge: str) -> tuple[int, int, list[float]]:
        mine = [row.estimate for row in some if _judge(row.estimate) == judge]
        return sum(round(e.value * e.n) for e in mine), sum(e.n for e in mine), [e.value for e in mine]

    def cell(some: Sequence[Row]) -> str:
        hits, n, seeds = pooled(some, "B")
        if n == 0:
            return "–"
        low, high = wilson(hits, n)
        each = " / ".join(f"{100 * value:.0f}" for value in seeds)
        a_hits, a_n, _ = pooled(some, "A")
        beside = f", A {100 * a_hits / a_n:.0f}" if a_n else ""
        return f"{100 * hits / n:.0f} [{100 * low:.0f}, {100 * high:.0f}] n {n} ({each}{beside})"

    assert all(is_share(row.estimate.metric) for row in rows)
    return _table(rows, name, cell)


def _judge(e: Estimate) -> str:
    return JUDGES.get(e.contract.partition("[")[0].partition("@")[0], "?")


def _name(e: Estimate) -> str:
    """The contract without its weights."""
    return e.contract.rpartition("@")[0] or e.contract


def _numbers(rows: Sequence[Row]) -> str:
    """Each seed's number, and n of one seed."""

    def cell(some: Sequence[Row]) -> str:
        found = [row.estimate for row in some]
        return " / ".join(f"{e.value:.3g}" for e in found) + f" (n {found[0].n})" if found else "–"

    return _table(rows, lambda e: f"{e.metric}, {e.scenario}", cell)


if __name__ == "__main__":
    main()
