"""The verbs of one run, once: what the command line and `import duo_unlearn` run. Heavy imports wait for a call."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .runs.folder import Run

if TYPE_CHECKING:
    from .arena.attempts import AttackState
    from .attacks.interface import Preset
    from .records import Pair
    from .report.status import Status
    from .runs.results import Results
    from .session import Session
    from .system import System

# A room has the name of a verb. It is loaded now, or loading it later would put it in the verb's place.
importlib.import_module(f"{__package__}.report")

Say = Callable[[str], None]
"""Called with a line on what was done."""


def silent(_line: str) -> None:
    """Say nothing."""


def open_run(
    output: str | Path = "runs/erase",
    *,
    model: str | None = None,
    concept: str | None = None,
    settings: Mapping[str, Any] | None = None,
    file: str | Path | None = None,
    quiet: bool = False,
) -> Session:
    """Open a run folder, which may be new; every other verb takes what this gives.

    model: "mini", a diffusers folder, one checkpoint file, or a hub id. concept: a shipped concept's name or a concept
    file. settings: dotted keys, e.g. {"train.beta": 250}; `duo check` lists them. file: a settings file. A folder keeps
    its settings, so a later call needs the folder alone. Raises DuoError on anything that the caller can mend.
    """
    from .session import Session
    from .settings.resolve import resolve_settings
    from .settings.tree import merge, nest

    names = {"model": model, "concept": concept, "output": str(output)}
    given = merge({k: v for k, v in names.items() if v is not None}, nest(settings or {}))
    return Session(resolve_settings(given, Path(file) if file is not None else None), quiet=quiet)


def reopen_run(folder: str | Path, *, quiet: bool = False, hint: str = "run `duo erase` first") -> Session:
    """Open a run folder that is there already; another folder is a DuoError with that hint."""
    run = Run(Path(folder))
    run.check_form()
    if not run.settings.exists():
        raise run.no_run(hint)
    return open_run(folder, quiet=quiet)


def make_pairs(run: Session, say: Say = silent) -> list[Pair]:
    """Make the pairs of a run, or import the user's own; gives all of them, dropped ones too.

    Any number of processes may make them together.
    """
    from .arena.stages import make_pairs as stage

    with run.run.lock(shared=True):
        pairs, state = stage(run)
    apart = run.held_out_count
    kept = f"{sum(pair.keep for pair in pairs)} of {len(pairs)} kept" + (f", {apart} held out" if apart else "")
    say(f"pairs: {state}, {kept} → {run.run.pairs}")
    return pairs


def train(run: Session, say: Say = silent) -> Path:
    """Make the edit by the eraser of the settings; gives its folder. A LoRA loads with `pipe.load_lora_weights`."""
    from .arena.edits import make_edit

    with run.run.lock():
        state = make_edit(run, say=say)
    folder = run.run.edit(run.settings.edit)
    say(f"train: {state} → {folder}")
    return folder


def evaluate(run: Session, systems: Sequence[str] | None = None, say: Say = silent) -> Results:
    """Measure systems beside the original. systems: their names; None: those of the run's settings."""
    from .arena.stages import evaluate as stage
    from .families.registry import FAMILIES

    inverts = run.settings.evaluate.inversion_prompts and FAMILIES.get(run.family).reads_clip_alone

    def check(found: Sequence[System]) -> None:
        for system in found:
            run.check_system(system)

    chosen = _chosen_systems(run, systems, ["concept-inversion"] if inverts else [], check, say)
    with run.run.lock(shared=True):
        measured = stage(run, chosen)
        say(f"evaluate: {measured.state}, {len(measured.results.estimates)} estimates → {run.run.results}")
    return measured.results


def take_step(run: Session, step: int | None = None, say: Say = silent) -> str:
    """Make an adapter that a training kept an edit of the run; gives its name, e.g. "duo-300".

    step: one of those that were kept; None: the best one on the held-out pairs.
    """
    from .erasers.step_adapters import chosen_step, is_taken
    from .erasers.step_adapters import take_step as take

    chosen = chosen_step(run.run, run.settings.edit, step)
    if is_taken(run.run, run.settings.edit, chosen):  # processes that share an evaluation need no lock for it
        return f"{run.settings.edit}-{chosen}"
    with run.run.lock():
        name = take(run.run, run.settings.edit, chosen)
    say(f"train: the adapter of step {chosen} → {run.run.edit(name)}")
    return name


def erase(run: Session, say: Say = silent) -> Results:
    """Erase a concept: pairs, edit, evaluation and report. The same call resumes, and skips what is done.

    Any number of processes may do it together: they share pairs and evaluation, and one of them trains.
    """
    from .arena.edits import make_edit_by_one
    from .runs.machine import alone
    from .settings.check import check_training
    from .settings.wordless import check_words, known_pairs

    alone("erase")
    # Pairs take long: what cannot be trained afterwards is told before them.
    check_training(run.settings, run.family)
    check_words(run.settings, known_pairs(run.settings))
    make_pairs(run, say)
    with run.run.lock(shared=True):
        state = make_edit_by_one(run, say)
    say(f"train: {state} → {run.run.edit(run.settings.edit)}")
    results = evaluate(run, None, say)
    say(f"report: done → {report(run.run.folder)}")
    return results


def attack(
    run: Session,
    attacks: Sequence[str] | None = None,
    *,
    systems: Sequence[str] | None = None,
    preset: Preset = "quick",
    prompts: int = 50,
    file: Path | None = None,
    replay: Path | None = None,
    aware: bool = False,
    budgets: Mapping[str, Mapping[str, Any]] | None = None,
    say: Say = silent,
) -> tuple[list[AttackState], Results]:
    """Attack systems, and the original beside them; the images are kept and judged. Gives each attack's state.

    attacks: names of `duo attacks`, all when None. systems: names; None: those of the run's settings. prompts: how many
    are attacked; file: a file of prompts in their place. replay: a run whose findings are used in place of a search.
    aware: white-box searches differentiate through the guards of a system; else they are unaware of them. budgets:
    attack → fields of its budget that are not the preset's, e.g. {"p4d": {"steps": 500}}.
    """
    from .arena.plans import AttackPlan
    from .arena.stages import attack as stage
    from .arena.stages import check_attack
    from .attacks.registry import ATTACKS

    names = list(attacks) if attacks else ATTACKS.names()
    for name in names:
        ATTACKS.check(name)
    plan = AttackPlan(names, preset, prompts, aware, file, budgets or {})
    chosen = _chosen_systems(run, systems, names, lambda found: check_attack(run, found, plan, replay), say)
    # Others may join with the same command: the work is divided by claims.
    with run.run.lock(shared=True):
        done = stage(run, chosen, plan, replay)
    for state in done.states:
        many = f"{state.attempts} attempts" if state.reason is None else state.reason
        say(f"{state.group.attack_name} on {state.group.system}, {state.group.scenario} prompts: {many}")
    say(f"report: done → {report(run.run.folder)}")
    return done.states, done.results


def _chosen_systems(
    run: Session,
    names: Sequence[str] | None,
    attacks: Sequence[str],
    check: Callable[[Sequence[System]], None],
    say: Say,
) -> list[System]:
    """The systems of names, or those of the run's settings, checked.

    Pairs are made first where the attacks or a guard need images of the concept and the run, of a model of others, has
    none; so what cannot be asked is told before.
    """
    from .attacks.registry import ATTACKS
    from .guards.registry import GUARDS
    from .pairs.manifest import MANIFEST

    def find() -> list[System]:
        return [run.system(name) for name in names] if names else run.systems()

    systems = find()
    run.check_change(systems)
    check(systems)
    needed = any("pairs" in ATTACKS.get(name).needs for name in attacks)
    learned = any(GUARDS.get(guard.name).learns for system in systems for guard in system.guards)
    if (run.run.pairs / MANIFEST).exists() or not (needed or learned):
        return systems
    make_pairs(run, say)
    return find()  # a guard that learns from the pairs has another hash now


def add_edit(
    run: Session,
    name: str,
    *,
    erased: Path | None = None,
    lora: Path | None = None,
    unet: Path | None = None,
    text_encoder: Path | None = None,
) -> str:
    """Take over an edit that others made: an erased diffusers folder, a LoRA file, or a state dict of one part.

    It is checked against the run's base model and written into the run; gives the name of its system. Of the four
    sources one is given. Any number of processes may do it together.
    """
    from .edits.foreign import add_edit as write
    from .system import check_edit_name

    check_edit_name(name)
    # Processes that share the command wait for the one that takes it over, and find it there.
    with run.run.lock(shared=True), run.run.claim(f"edit.{name}", wait=True):
        run.begin()
        write(run.model, run.run.edit(name), name, erased=erased, lora=lora, unet=unet, text_encoder=text_encoder)
        run.finish("edit", 0.0, "done")
    return name


def judge(
    run: Session,
    detector: str | None = None,
    *,
    labels: Sequence[str] = (),
    threshold: float | None = None,
    say: Say = silent,
) -> Results:
    """Judge every attempt under a detector, the concept's when None; nothing is sampled.

    labels, threshold: in place of what the concept file says of a detector that it names.
    The estimates under each contract stand side by side in results.json. What was derived and is broken is made again.
    A system whose guard works towards a detector, or refuses what it sees, has no number under that one, and `say` is
    told so. Under the judge that heads the tables a filter's number stands; the report says what it is.
    """
    from .arena.stages import judge as stage
    from .arena.stages import other_detector

    used = None
    if detector is not None or labels or threshold is not None:
        used = other_detector(run, detector, labels, threshold)
    with run.run.lock():
        measured = stage(run, used)
    say(f"judge: {measured.state} → {run.run.results}")
    head = str(run.judges.there[0].contract)
    for contract in [str(judge.contract) for judge in ([used] if used is not None else run.judges.there)]:
        for name, one in run.known_systems().items():
            if (reason := one.why_no_measure(contract, head)) is not None:
                say(f"judge: {name} has no number under {contract}: {reason} it")
    say(f"report: done → {report(run.run.folder)}")
    return measured.results


def report(folder: str | Path, *, images: bool = True) -> Path:
    """Write a run's page from what its folder holds; images=False: one with counts alone, to share."""
    from .arena.labelled import results_are_old
    from .report.page import write_report

    run = Run(Path(folder))
    run.check_form()
    if not run.is_there:
        raise run.no_run("run `duo erase` first")
    if run.attempts.is_dir() and run.settings.exists() and results_are_old(run):
        from .arena.results import make_results  # which loads torch; a page alone does without

        make_results(open_run(folder, quiet=True))
    return write_report(run, images=images)


def status(folder: str | Path) -> Status:
    """How a run stands: what is done, what is missing under its settings, who works on it, the time left."""
    from .report.status import read_status

    return read_status(Run(Path(folder)))
