"""Run a protocol: a run a concept, DUO at every β, attacks and captions; then ours beside what was published."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

from ..arena.plans import AttackPlan
from ..arena.stages import attack, evaluate
from ..concepts.captions import CAPTIONS
from ..errors import DuoError
from ..experiments.interference import COMPOSED, compose_runs, measure
from ..experiments.sharing import share_originals
from ..experiments.sweep import member_folder, sweep
from ..families.load import pick_device
from ..pipeline import Say, silent
from ..records import ORIGINAL
from ..runs.folder import Run
from ..runs.results import read_results
from ..session import VERSIONED, Session, machine
from ..settings.check import check_device, check_family
from ..settings.resolve import resolve_settings
from ..settings.tree import Settings
from .page import write_page
from .plan import Brought, caption_folder, caption_settings, check_brought, given_settings, used_files
from .protocol import Protocol
from .results import (
    Measured,
    Reproduction,
    Row,
    measured_of,
    read_reproduction,
    rows_of,
    write_reproduction,
)

RESULTS: Final = "reproduction.json"


class _Place(NamedTuple):
    """Where the numbers of one β and concept lie. system: the edited one's name. scenario: the only one; None: all."""

    beta: float
    concept: str
    run: Run
    system: str
    scenario: str | None = None


def reproduce(protocol: Protocol, brought: Brought, *, quiet: bool = False, say: Say = silent) -> Reproduction:
    """Run a protocol in a folder and write reproduction.json, reproduction.md and a figure a concept there.

    What is done is skipped, so the same call goes on after a kill. Any number of processes may run it together. A
    folder of another protocol, and what the protocol cannot use, is a DuoError before anything is made.
    """
    check_brought(protocol, brought)
    _check_output(protocol, brought.output)
    folders = [brought.output / name for name in protocol.names]
    given = [given_settings(protocol, brought, *one) for one in zip(protocol.concepts, folders, strict=True)]
    firsts = [_session(one, quiet) for one in given]
    for first in firsts:  # what would fail hours later
        check_family(first.settings, first.family)
        check_device(first.settings)
        _ = first.judges
    places = _single(protocol, firsts[0], say) if len(firsts) == 1 else _several(protocol, brought, firsts, say)
    if brought.captions is not None:
        places += _captions(protocol, brought, places, quiet)
    with firsts[0].run.claim("reproduction", wait=True):
        return _written(protocol, brought, firsts, places)


def run_folders(protocol: Protocol, brought: Brought) -> Iterator[Path]:
    """The run folders that processes share, for a look at how far they are."""
    for name in protocol.names:
        run = Run(brought.output / name)
        yield run.folder
        yield from (member_folder(run, "beta", beta) for beta in protocol.betas)
    if brought.captions is not None:
        yield from (caption_folder(brought.output, beta) for beta in protocol.betas)


def _check_output(protocol: Protocol, output: Path) -> None:
    path = output / RESULTS
    if path.exists() and (known := read_reproduction(path)).protocol.digest != protocol.digest:
        got = f"{known.protocol.name}, {known.protocol_sha256[:16]}"
        raise DuoError(f"{output} holds a reproduction of another protocol", got=got, hint="another --output")


def _session(given: dict[str, object], quiet: bool) -> Session:
    return Session(resolve_settings(given), quiet=quiet)


def _attacks(protocol: Protocol) -> list[AttackPlan]:
    return [AttackPlan([one.name], one.preset, one.prompts) for one in protocol.attacks]


def _single(protocol: Protocol, first: Session, say: Say) -> list[_Place]:
    sweep(first, "beta", protocol.betas, attacks=_attacks(protocol), say=say)
    edit, concept = first.settings.edit, protocol.names[0]
    return [_Place(beta, concept, Run(member_folder(first.run, "beta", beta)), edit) for beta in protocol.betas]


def _several(protocol: Protocol, brought: Brought, firsts: Sequence[Session], say: Say) -> list[_Place]:
    """Adapters that were trained apart, and their sum at each β on every concept."""
    for first in firsts:
        sweep(first, "beta", protocol.betas, say=say)
    places = []
    for beta in protocol.betas:
        sources = [member_folder(first.run, "beta", beta) for first in firsts]
        folder = brought.output / COMPOSED / f"beta-{beta:g}"
        with firsts[0].run.claim(f"composed.{beta:g}", wait=True):
            compose_runs(sources, [], folder)
            measure(sources, folder, {}, quiet=firsts[0].quiet)
        for number, (name, first) in enumerate(zip(protocol.names, firsts, strict=True), 1):
            session = _session({"output": str(folder / f"{number}-{first.concept.name}")}, first.quiet)
            session.model = firsts[0].model
            with session.run.lock(shared=True):
                for plan in _attacks(protocol):
                    attack(session, [session.system(COMPOSED)], plan)
            places.append(_Place(beta, name, session.run, COMPOSED))
    return places


def _captions(protocol: Protocol, brought: Brought, places: Sequence[_Place], quiet: bool) -> list[_Place]:
    """Captions, asked at every β of the edit of the first concept's place; the original's images are those of all."""
    found: list[_Place] = []
    model = None
    for place in (one for one in places if one.concept == protocol.names[0]):
        session = _session(caption_settings(protocol, brought, place.beta), quiet)
        session.model = model if model is not None else session.model
        model = session.model
        with session.run.claim("captions", wait=True):
            if not session.run.edit(place.system).is_dir():
                shutil.copytree(place.run.edit(place.system), session.run.edit(place.system))
            if found:
                share_originals(found[0].run, session.run)
        with session.run.lock(shared=True):
            evaluate(session, [session.system(place.system)])
        found.append(place._replace(run=session.run, scenario=CAPTIONS))
    return found


def _written(protocol: Protocol, brought: Brought, firsts: Sequence[Session], places: Sequence[_Place]) -> Reproduction:
    measured, absent = _measured(places)
    settings: Settings = firsts[0].settings
    why = "no --captions" if protocol.captions is not None and brought.captions is None else "see not_measured"
    if protocol.captions is not None and brought.captions is None:
        absent.append(f"captions: {why}")
    whole = Reproduction(
        version=1,
        protocol=protocol,
        protocol_sha256=protocol.digest,
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        machine=machine(pick_device(settings.device).type),
        versions={name: version(name) for name in VERSIONED},
        base=str(places[0].run.read_record().get("base", "")),
        model=settings.model,
        seed=settings.seed,
        judges=[str(judge.contract) for judge in firsts[0].judges.there],
        files=used_files(brought),
        rows=_with_reasons(rows_of(protocol, measured), why),
        measured=measured,
        not_measured=absent,
    )
    path = brought.output / RESULTS
    if path.exists():
        known = read_reproduction(path)
        again = whole.model_copy(update={"finished": known.finished})
        whole = again if again == known else whole
    write_reproduction(path, whole)
    write_page(brought.output, whole)
    return whole


def _with_reasons(rows: Sequence[Row], captions: str) -> list[Row]:
    """Rows, and why those of captions that there are none of are missing."""
    return [
        row.model_copy(update={"reason": captions if row.published.scenario == CAPTIONS else "see not_measured"})
        if row.verdict == "not measured"
        else row
        for row in rows
    ]


def _measured(places: Sequence[_Place]) -> tuple[list[Measured], list[str]]:
    """Every number of the edited systems, those of the original once, and what there is none of."""
    found: list[Measured] = []
    absent: list[str] = []
    known: set[tuple[str | None, ...]] = set()
    for place in places:
        results = read_results(place.run)
        for estimate in results.estimates:
            if place.scenario not in (None, estimate.scenario):
                continue
            if estimate.system == ORIGINAL:
                if (key := (place.concept, *estimate.of_what)) not in known:
                    found.append(measured_of(estimate, None, place.concept))
                known.add(key)
            elif estimate.system == place.system:
                found.append(measured_of(estimate, place.beta, place.concept))
        for one in results.absent:
            if place.scenario in (None, one["scenario"]) and one["system"] in (place.system, "every system"):
                attack = f", {one['attack']} ({one['preset']})" if one["attack"] else ""
                absent.append(
                    f"β {place.beta:g}, {place.concept}, {one['metric']}, {one['scenario']}{attack}: {one['reason']}"
                )
    return found, absent
