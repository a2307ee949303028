"""How a run stands: what is done, what is missing under its settings, who works on it, and how long that may take.

It reads the folder alone, changes nothing, and takes no lock. Torch is not imported.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from ..concepts.captions import CAPTIONS, read_captions
from ..concepts.store import load_concept
from ..edits.provenance import edit_names
from ..erasers.duo.settings import ObjectiveSettings
from ..erasers.wraps import edit_name, is_round, round_name, whole_name
from ..errors import DuoError
from ..pairs.manifest import MANIFEST, PARTIAL, Manifest, read_entries
from ..records import ORIGINAL
from ..runs.folder import Run
from ..runs.holders import Holder, holders
from ..settings.sampling import sampling_of
from ..settings.tree import Settings, merge, own_options, read_settings, whole_settings
from .asked import Asked, object_or_empty, place_of, rate_of, read_asked, why_stale
from .read import curve

State = Literal["done", "running", "begun", "not begun"]
_CLAIMED: Final = {
    "judge": ["judge"],
    "edit.": ["train"],
    "bank.": ["train"],
    "pairs": ["pairs"],
    "held-out": ["pairs"],
}
"""How a claim begins → the stage that its process is at; others are of images."""
ROUNDED: Final = ("robust-duo",)
"""Erasers whose option `rounds` says how many trainings there are; those of stereo are parts of one."""


class Work(NamedTuple):
    """A stage, or what one asks of a system. done, of: of its unit; of: None where that is not known.

    seconds_left: for one process; None where it is not known. note: what more there is to say.
    """

    name: str
    state: State
    done: int
    of: int | None
    unit: str
    seconds_left: float | None = None
    note: str = ""


class Status(NamedTuple):
    """A run as it stands. stages: pairs, train, evaluate, judge, report, in order. attacks: those that were asked for.

    processes: dead ones also; None where the system does not tell. next: the command that goes on; None: all is done,
    or at work.
    """

    run: str
    concept: str | None
    model: str | None
    seed: int | None
    stages: list[Work]
    attacks: list[Work]
    processes: list[Holder] | None
    next: str | None

    @property
    def seconds_left(self) -> float | None:
        """Of all that is not done, as far as it is known; None where nothing is."""
        known = [work.seconds_left for work in (*self.stages, *self.attacks) if work.seconds_left is not None]
        return sum(known) if known else None

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        named = {"stages": [work._asdict() for work in self.stages], "attacks": [w._asdict() for w in self.attacks]}
        processes = None if self.processes is None else [holder.as_json() for holder in self.processes]
        return {**self._asdict(), **named, "processes": processes, "seconds_left": self.seconds_left}


class _Folder(NamedTuple):
    """What the parts of a status are read from. settings: of the run, with defaults for what it has none of.

    sampling: that of the settings, without defaults.
    """

    run: Run
    settings: Mapping[str, Any]
    record: Mapping[str, Any]
    asked: list[Asked]
    processes: list[Holder]
    sampling: Mapping[str, float] = {}

    @property
    def edit(self) -> str:
        return edit_name(str(self.settings["eraser"]), self.settings["wrap"])


def read_status(run: Run) -> Status:
    """How a run stands. A folder that is no run is a DuoError; so are settings that were changed by hand."""
    run.check_form()
    if not run.is_there:
        raise run.no_run(f"duo erase -o {run.argument}")
    raw = read_settings(run.settings) if run.settings.exists() else {}
    found = holders(run)
    at_work = [holder for holder in found or [] if holder.lives is not False]
    settings = merge(Settings().model_dump(mode="json"), raw)
    folder = _Folder(run, settings, object_or_empty(run.record), read_asked(run), at_work, sampling_of(raw))
    evaluated, attacks = _evaluated(folder)
    stages = [_pairs(folder), _train(folder), evaluated, _judged(folder), _report(folder)]
    stages = _running(stages, folder.processes)
    name = {key: raw.get(key, folder.record.get(key)) for key in ("concept", "model", "seed")}
    then = None if at_work else _then(folder, stages, attacks)
    return Status(str(run.folder), name["concept"], name["model"], name["seed"], stages, attacks, found, then)


def read_stage(run: Run, stage: Literal["pairs", "train"]) -> Work:
    """One stage of a run alone, which reads little: who waits for several processes looks every few seconds."""
    run.check_form()
    settings = whole_settings(run.settings)
    folder = _Folder(run, settings, {}, [], [])
    return _pairs(folder) if stage == "pairs" else _train(folder)


def _then(folder: _Folder, stages: Sequence[Work], attacks: Sequence[Work]) -> str | None:
    """The command that goes on; None where all is done."""
    run = folder.run
    # A run of what others erased has no pairs and no edit of its own, and needs none.
    of_others = not run.edit(folder.edit).is_dir() and bool(edit_names(run.edits))
    if not of_others and any(work.state != "done" for work in stages[:3]):
        return f"duo erase -o {run.argument}"
    if any(work.state != "done" for work in attacks):
        return f"duo attack {run.argument}"
    judged, page = stages[3:]
    return None if judged.state == page.state == "done" else f"duo judge {run.argument}"


def _pairs(folder: _Folder) -> Work:
    over = _manifest(folder.run, MANIFEST)
    content = over or _manifest(folder.run, PARTIAL)
    pairs, tries = (content.pairs, content.tries) if content is not None else ([], [])
    wanted = sum(kind.wanted for kind in tries) if tries else None
    dropped = sum(not pair.keep for pair in pairs)
    note = f"{dropped} dropped" if dropped else ""
    state: State = "done" if over else "begun" if content else "not begun"
    return Work("pairs", state, len(pairs), wanted if not over else len(pairs), "pairs", note=note)


def _manifest(run: Run, name: str) -> Manifest | None:
    """A list of pairs; a broken one is none."""
    with contextlib.suppress(DuoError):
        return read_entries(run.pairs, name)
    return None


def _train(folder: _Folder) -> Work:
    """By optimizer steps, of all rounds. Those of the eraser duo and its kind say how fast they are."""
    run, name, settings = folder.run, folder.edit, folder.settings
    own = own_options(settings)
    if settings["eraser"] in ROUNDED:
        own = {"max_train_steps": ObjectiveSettings().max_train_steps, **own}
    many = own.get("rounds", 1) if settings["eraser"] in ROUNDED else 1
    rounds = [*(round_name(name, number) for number in range(1, many)), name]
    curves = [curve(run.metrics(one)) if run.metrics(one).exists() else [] for one in rounds]
    lines = [line for lines in curves for line in lines]
    done = sum(int(lines[-1]["step"]) for lines in curves if lines)
    steps = own.get("max_train_steps", own.get("steps")) if run.settings.exists() else None
    steps = None if steps is None else steps * len(rounds)
    others = [other for other in edit_names(run.edits) if other != name and not is_round(other, name)]
    notes = [f"{len(rounds)} rounds"] if len(rounds) > 1 else []
    note = "; ".join([*notes, *([f"other edits: {', '.join(others)}"] if others else [])])
    if run.edit(name).is_dir():
        return Work("train", "done", done, done, "steps", note=note)
    rates = sorted(line["pairs_per_second"] for line in lines[-50:] if line.get("pairs_per_second"))
    left = None
    if rates and steps is not None:
        size = own.get("train_batch_size", 1) * own.get("gradient_accumulation_steps", 1)
        left = max(0, steps - done) * size / rates[len(rates) // 2]
    return Work("train", "begun" if lines else "not begun", done, steps, "steps", left, note)


def _evaluated(folder: _Folder) -> tuple[Work, list[Work]]:
    """The images of an evaluation under the settings, and a line for each attack."""
    stale = {one.group: why for one in folder.asked if (why := why_stale(folder.run, one, folder.sampling)) is not None}
    current = [one for one in folder.asked if one.group not in stale]
    wanted = _wanted(folder)
    mine = {place: [one for one in current if place_of(one.group) == place] for place in wanted}
    done = of = 0
    for place, size in wanted.items():
        if any(one.reason is not None for one in mine[place]):
            continue  # it cannot be asked there, and the reason is in the results
        of += size
        done += min(size, max((one.done for one in mine[place]), default=0))
    rate = rate_of([one for several in mine.values() for one in several])
    left = None if rate is None or done == of else (of - done) * rate
    state: State = "done" if of and done >= of else "begun" if done else "not begun"
    work = Work("evaluate", state, done, of or None, "images", left)
    rest = [one for one in folder.asked if place_of(one.group) not in wanted or one not in current]
    return work, [_attack(one, rest, stale.get(one.group), folder.processes) for one in rest]


def _attack(one: Asked, others: Sequence[Asked], stale: str | None, processes: Sequence[Holder]) -> Work:
    """The line of one attack on one system. others: the same one on other systems says how long it takes."""
    group = one.group
    name = f"{group.attack_name} on {group.system}: {group.scenario}" + (f", {group.preset}" if group.preset else "")
    name += f", {group.search}" if group.search else ""
    if (note := one.reason or stale) is not None:
        return Work(name, "done" if one.reason else "begun", 0, 0, "images", note=note)
    working = any(group.is_claimed_by(claim.name) for holder in processes for claim in holder.claims)
    state: State = "done" if one.done >= one.size else "running" if working else "begun" if one.done else "not begun"
    same = [o for o in others if (o.group.attack, o.group.preset) == (group.attack, group.preset)]
    rate = rate_of([one]) or rate_of(same)
    left = None if rate is None or state == "done" else (one.size - one.done) * rate
    return Work(name, state, one.done, one.size, "images", left)


def _wanted(folder: _Folder) -> dict[tuple[str, str, str], int]:
    """(system, prompt set, attack) → images that an evaluation has; none where settings or concept are not there."""
    settings, counts = folder.settings, folder.settings["evaluate"]
    if not folder.run.settings.exists():
        return {}
    try:
        concept = load_concept(str(settings["concept"]))
    except DuoError:
        return {}
    sets = dict.fromkeys(concept.attacks, counts["prompts"])
    sets |= {"keep": counts["keep_prompts"]} if concept.keep else {}
    sets |= dict.fromkeys(concept.neighbours, counts["neighbour_prompts"])
    sets |= _captions(counts)
    inverted: dict[str, int] = {}
    if counts["inversion_prompts"]:
        few = min(counts["inversion_prompts"], counts["prompts"])
        inverted = dict.fromkeys(concept.asking, few)
        inverted |= {"plain": counts["inversion_prompts"]} if concept.plain is not None else {}
    whole = whole_name(folder.edit, settings["floor"])
    systems = [ORIGINAL, whole, *(["+".join([whole, *settings["guard"]])] if settings["guard"] else [])]
    asked = {(system, name, "direct"): count for system in systems for name, count in sets.items()}
    return asked | {(s, name, "concept-inversion"): n for s in systems for name, n in inverted.items()}


def _captions(counts: Mapping[str, Any]) -> dict[str, int]:
    """The prompt set of a file of captions, which may have fewer than are asked for; {} where there is none."""
    if counts["captions"] is None:
        return {}
    path = Path(counts["captions"])
    try:
        there = _captions_in(path, path.stat().st_mtime_ns)
    except (DuoError, OSError):  # gone since: what was asked is told all the same
        there = counts["caption_prompts"]
    return {CAPTIONS: min(counts["caption_prompts"], there)}


@functools.lru_cache(maxsize=8)
def _captions_in(path: Path, _changed: int) -> int:
    """How many captions a file has, read once: who waits for a run looks every few seconds."""
    return len(read_captions(path))


def _judged(folder: _Folder) -> Work:
    """The pictures that the judge with the fewest verdicts has judged."""
    pictures = {sha for one in folder.asked for sha in one.pictures}
    told = [object_or_empty(path) for path in sorted(folder.run.verdicts.glob("*.json"))]
    counts = [len(pictures & {*(one.get("verdicts") or {}), *(one.get("faults") or {})}) for one in told]
    done = min(counts, default=0)
    state: State = "not begun" if not done else "done" if done == len(pictures) else "begun"
    note = f"by {len(told)} judges" if len(told) > 1 else ""
    return Work("judge", state, done, len(pictures), "pictures", note=note)


def _report(folder: _Folder) -> Work:
    run = folder.run
    there = run.report.exists()
    is_old = there and run.results.exists() and run.results.stat().st_mtime > run.report.stat().st_mtime
    state: State = "begun" if is_old else "done" if there else "not begun"
    return Work("report", state, int(there), 1, "page", note="older than the results" if is_old else "")


def _running(stages: list[Work], processes: Sequence[Holder]) -> list[Work]:
    """A process that has the run alone works at the first stage that is not done; of others their claims tell it."""
    if not processes:
        return stages
    claims = [claim.name for holder in processes for claim in holder.claims]
    if any(holder.alone for holder in processes):
        names = [work.name for work in stages]
    else:
        names = next(
            (names for start, names in _CLAIMED.items() if any(c.startswith(start) for c in claims)), ["evaluate"]
        )
    first = next((i for i, work in enumerate(stages) if work.name in names and work.state != "done"), None)
    return [work._replace(state="running") if i == first else work for i, work in enumerate(stages)]
