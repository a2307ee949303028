"""Run a protocol: a run a concept, DUO at every β, attacks and captions; then ours beside what was published."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from ..arena.plans import AttackPlan
from ..arena.sharing import share_edit, share_originals
from ..arena.stages import attack, evaluate
from ..concepts.captions import CAPTIONS
from ..edits.provenance import edit_hash
from ..errors import DuoError
from ..experiments.interference import COMPOSED, compose_runs, measure
from ..experiments.sweep import sweep
from ..experiments.swept import member_folder
from ..families.load import pick_device
from ..pipeline import Say, silent
from ..records import ORIGINAL, Stage
from ..runs.attempts import set_broken_aside
from ..runs.folder import Run
from ..runs.results import read_results
from ..session import VERSIONED, Session, machine
from ..settings.check import check_training
from ..settings.resolve import resolve_settings
from ..settings.tree import Settings
from ..storage.files import digest, read_object, write_json
from .page import write_page
from .plan import Brought, caption_folder, caption_settings, changes, check_brought, given_settings, used_files
from .protocol import Protocol
from .results import Measured, Reproduction, measured_of, read_reproduction, rows_of, write_reproduction

RESULTS, PROTOCOL = "reproduction.json", "protocol.json"


class _Place(NamedTuple):
    """Where the numbers of one β and concept lie. system: the edited one's name. scenario: the only one; None: all."""

    beta: float
    concept: str
    run: Run
    system: str
    scenario: str | None = None


def reproduce(protocol: Protocol, brought: Brought, *, quiet: bool = False, say: Say = silent) -> Reproduction:
    """Run a protocol in a folder and write reproduction.json, reproduction.md and a figure a concept there.

    The protocol is written down first. What is done is skipped, so the same call goes on after a kill. Any number of
    processes may run it together. What the protocol cannot use is a DuoError before anything is made, and so is a
    folder of another protocol.
    """
    check_brought(protocol, brought)
    _begin(protocol, brought.output)
    folders = [brought.output / name for name in protocol.names]
    given = [given_settings(protocol, brought, *one) for one in zip(protocol.concepts, folders, strict=True)]
    firsts = [_session(one, quiet) for one in given]
    for first in firsts:  # what would fail hours later
        check_training(first.settings, first.family)
        _ = first.judges
    places = _single(protocol, firsts[0], say) if len(firsts) == 1 else _several(protocol, brought, firsts, say)
    places += _captions(protocol, brought, places, quiet)
    with firsts[0].run.claim("reproduction", wait=True):
        return _written(protocol, brought, firsts, places)


def stages(protocol: Protocol, brought: Brought) -> dict[Path, list[Stage]]:
    """Run folder → what is made there, for a look at how far processes are that share a protocol."""
    found: dict[Path, list[Stage]] = {}
    for name in protocol.names:
        run = Run(brought.output / name)
        found[run.folder] = ["pairs"]
        found |= {member_folder(run, "beta", beta): ["train", "images"] for beta in protocol.betas}
    if brought.captions is not None:
        found |= {caption_folder(brought.output, beta): ["images"] for beta in protocol.betas}
    return found


def _begin(protocol: Protocol, output: Path) -> None:
    """Write the protocol down before the first stage; fail where the folder holds another one."""
    path = output / PROTOCOL
    whole = {"sha256": protocol.digest, "protocol": protocol.model_dump(mode="json")}
    if not path.exists():
        if Run(output).settings.exists():
            hint = "another --output: a reproduction has a folder of its own, with run folders in it"
            raise DuoError(f"{output} is a run folder", got="settings.yaml in it", hint=hint)
        write_json(path, whole)
    elif (known := read_object(path)) != whole:
        got = f"{known.get('protocol', {}).get('name')}, {str(known.get('sha256'))[:16]}"
        hint = "another --output: a protocol stays as it was when its first stage began"
        raise DuoError(f"{output} holds a reproduction of another protocol", got=got, hint=hint)


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
    """Captions, asked at every β of the edit of the first concept's place; the original's images are those of all.

    Without captions now, those that were asked before are read, where they were asked of the same edit.
    """
    found: list[_Place] = []
    model = None
    for place in (one for one in places if one.concept == protocol.names[0]):
        run = Run(caption_folder(brought.output, place.beta))
        there = place._replace(run=run, scenario=CAPTIONS)
        if brought.captions is None:
            found += [there] if run.results.exists() and _is_copy(place, run) else []
            continue
        session = _session(caption_settings(protocol, brought, place.beta), quiet)
        session.model = model = session.model if model is None else model
        with session.run.claim("share", wait=True):
            share_edit(place.run.edit(place.system), session.run.edit(place.system))
            if found:
                share_originals(found[0].run, session.run)
        with session.run.lock(shared=True):
            evaluate(session, [session.system(place.system)])
        found.append(there)
    return found


def _is_copy(place: _Place, run: Run) -> bool:
    """Whether a run that asks captions has the edit of a place as it is now."""
    try:
        return edit_hash(run.edit(place.system)) == edit_hash(place.run.edit(place.system))
    except DuoError:  # one of them is gone
        return False


def _written(protocol: Protocol, brought: Brought, firsts: Sequence[Session], places: Sequence[_Place]) -> Reproduction:
    measured, absent = _measured(places)
    settings: Settings = firsts[0].settings
    asked = any(place.scenario == CAPTIONS for place in places)
    if protocol.captions is not None and not asked:
        absent.append("captions: no --captions")
    path = brought.output / RESULTS
    known = _earlier(path)
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
        changes=changes(protocol, settings, protocol.concepts[0]),
        concepts={n: digest(f.concept.model_dump(mode="json")) for n, f in zip(protocol.names, firsts, strict=True)},
        judges=[str(judge.contract) for judge in firsts[0].judges.there],
        files=used_files(brought) or (known.files if known is not None and asked else []),
        rows=rows_of(protocol, measured),
        measured=measured,
        not_measured=absent,
    )
    if known is not None:
        # Nothing was measured anew: it stays of when, where and with what it was.
        before = {"finished": known.finished, "machine": known.machine, "versions": known.versions}
        again = whole.model_copy(update=before)
        whole = again if again == known else whole
    write_reproduction(path, whole)
    write_page(brought.output, whole)
    return whole


def _earlier(path: Path) -> Reproduction | None:
    """What was written before; None where there is nothing, or where it was broken or of another form: set aside."""
    if not path.exists():
        return None
    try:
        return read_reproduction(path)
    except DuoError as error:
        set_broken_aside(path, error.got or error.problem)
        return None


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
