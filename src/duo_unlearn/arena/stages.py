"""The stages of a run as plain functions, in order.

Each reads from and writes to the run folder, and skips what is done under the same settings.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..concepts.prompt_files import prompts_digest
from ..detectors.interface import Detector
from ..detectors.registry import make_detector
from ..erasers.interface import State
from ..errors import DuoError
from ..pairs.blocks import Share
from ..pairs.held_out import are_made, held_out_seed
from ..pairs.manifest import MANIFEST
from ..pairs.own_pairs import import_pairs
from ..pairs.sheet import contact_sheet
from ..pairs.synthesize import make_pairs as synthesize
from ..records import Pair
from ..runs.folder import Run
from ..runs.machine import alone
from ..runs.results import Results
from ..session import Session
from ..system import System, check_aware
from .attempts import AttackState, make_attempts
from .held_out import held_out_share
from .judge import judge as judge_attempts
from .plans import AttackPlan, Plan, attack_plans, evaluation_plans, file_set_name, with_original
from .results import make_results


class Measurement(NamedTuple):
    """What a stage that measures gives: the results of the run, and whether there was something to do."""

    results: Results
    state: State


class Attacked(NamedTuple):
    """How each attack on each system stands, and the results of the run."""

    states: list[AttackState]
    results: Results


def make_pairs(session: Session) -> tuple[list[Pair], State]:
    """Pairs of unsafe images and safe counterparts: made by SDEdit, or taken from the user's folder.

    Any number of processes may make them together; a user's are taken by one while others wait.
    """
    alone("pairs")
    settings, folder = session.settings.pairs, session.run.pairs
    begin, manifest, held_out = session.begin(), folder / MANIFEST, session.run.held_out
    before = _times(manifest, held_out / MANIFEST)
    share = held_out_share(session)
    if settings.folder is not None:
        with session.run.claim("pairs", wait=True):
            detector = None if manifest.exists() else _detector_at_hand(session)
            pairs = import_pairs(
                settings.folder, folder, detector=detector, trust=settings.trust, held_out=held_out, share=share,
                quiet=session.quiet,
            )  # fmt: skip
    else:
        made = functools.partial(
            synthesize,
            session.model,
            session.detector,
            session.concept,
            guidance=settings.guidance,
            steps=settings.steps,
            strength=settings.strength,
            batch=settings.batch,
            tries=settings.tries,
            share=Share(session.run.claim, session.run.folder / "cache" / "candidates"),
            quiet=session.quiet,
        )
        pairs = made(folder, scale=settings.scale, seed=session.settings.seed)
        if are_made(session.concept, settings.scale, share):
            made(held_out, scale=settings.scale * share, seed=held_out_seed(session.settings.seed), held_out=True)
    state: State = "already done" if _times(manifest, held_out / MANIFEST) == before else "done"
    with session.run.claim("pairs", wait=True):
        if state == "done" or not (folder / "sheet.png").exists():
            contact_sheet(folder, folder / "sheet.png")
    return pairs, session.finish("pairs", time.monotonic() - begin, state)


def _times(*files: Path) -> list[int | None]:
    """When each file was last written; None where it is not there."""
    return [file.stat().st_mtime_ns if file.exists() else None for file in files]


def _detector_at_hand(session: Session) -> Detector | None:
    """The concept's detector to judge a user's pairs; None, said on stderr, where it cannot be had."""
    try:
        return session.detector
    except DuoError as error:
        print(f"pairs: not judged, {error.problem}", file=sys.stderr, flush=True)
        return None


def evaluate(session: Session, systems: Sequence[System] | None = None) -> Measurement:
    """Ask every scenario of the original and of some systems, judge, and write results.json.

    systems: those of the run's settings when None. What was sampled or judged already is read.
    """
    begin = session.begin()
    chosen = session.systems() if systems is None else list(systems)
    session.check_change(chosen)
    chosen = with_original(chosen)
    for system in chosen:
        session.check_system(system)
    _, sampled = make_attempts(session, evaluation_plans(session, chosen))
    measured = judge(session, sampled=sampled)
    session.finish("evaluate", time.monotonic() - begin, measured.state)
    return measured


def attack(session: Session, systems: Sequence[System], plan: AttackPlan, replay: Path | None = None) -> Attacked:
    """Run attacks on the original and on some systems, judge, and write results.json.

    replay: a run whose findings, found there on the system of the same name, are used in place of a search.
    """
    chosen = with_original(systems)
    for system in chosen:
        session.check_system(system)
    states, sampled = make_attempts(session, _plans(session, chosen, plan, replay))
    return Attacked(states, judge(session, sampled=sampled).results)


def ask_original(session: Session, attacks: Sequence[AttackPlan]) -> None:
    """Make the original model's attempts of an evaluation and of attacks, for runs that have it in common.

    Nothing is judged here.
    """
    original = [System()]
    plans = evaluation_plans(session, original)
    for plan in attacks:
        plans += _plans(session, original, plan)
    make_attempts(session, plans)


def check_attack(session: Session, systems: Sequence[System], plan: AttackPlan, replay: Path | None = None) -> None:
    """Fail for what cannot be asked: a guard, a prompt, a budget, or a run to replay that is none."""
    chosen = with_original(systems)
    for system in chosen:
        session.check_system(system)
    if plan.aware:
        check_aware([system.name for system in systems], "--guard NAME")
    if replay is not None and not Run(replay).settings.exists():
        raise Run(replay).no_run("--replay RUN")
    attack_plans(session, chosen, plan, replay)


def _plans(session: Session, systems: Sequence[System], plan: AttackPlan, replay: Path | None = None) -> list[Plan]:
    """What attacks ask of systems. A file of prompts is noted in run.json, which says what each name stands for."""
    if plan.file is None:
        return attack_plans(session, systems, plan, replay)
    with session.run.claim("prompt files", wait=True):
        plans = attack_plans(session, systems, plan, replay)  # first: a file that is refused was not asked
        name, known = file_set_name(session.run, plan.file), session.run.read_record().get("prompt_files", {})
        session.run.update_record(prompt_files={**known, name: prompts_digest(plan.file)})
    return plans


def judge(
    session: Session,
    detector: Detector | None = None,
    *,
    sampled: bool = False,
) -> Measurement:
    """Judge every attempt under a detector's contract, or all judges of the run when None, and write results.json."""
    with session.run.claim("judge", wait=True):
        used = [detector] if detector is not None else session.judges.there
        judged = [judge_attempts(session.run, one, quiet=session.quiet) for one in used]
        results, changed = make_results(session)
    return Measurement(results, "done" if sampled or any(judged) or changed else "already done")


def other_detector(session: Session, name: str | None, labels: Sequence[str], threshold: float | None) -> Detector:
    """A detector by name, for the pictures of the run's family; None: the concept's.

    One that the concept file names is as that says, but for the labels or the threshold that are given.
    """
    concept = session.concept
    if name is not None and name not in concept.detectors:
        return make_detector(name, tuple(labels), session.family, threshold)
    spec = concept.detector_named(name)
    # The concept's threshold is that of its own labels.
    usual = None if labels else spec.threshold
    chosen = tuple(labels) or tuple(spec.labels)
    return make_detector(spec.name, chosen, session.family, usual if threshold is None else threshold)
