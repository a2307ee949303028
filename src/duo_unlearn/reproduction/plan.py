"""What a reproduction will do, what it needs, and what must be at hand. Nothing is loaded, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..concepts.captions import read_coco
from ..concepts.store import load_concept
from ..detectors.registry import check_detector, known_weights
from ..errors import DuoError
from ..families.identify import is_hub_id, model_faults
from ..families.load import known_fingerprint
from ..features.clip import known_clip, why_no_clip
from ..features.lpips import DIGEST, FILE, why_no_lpips
from ..metrics.fidelity import names_digest, reference_pictures
from ..settings.needs import RATE, Needs, estimate
from ..settings.resolve import resolve_settings
from ..settings.tree import Settings, merge
from ..storage.files import printable, sha256_of
from .protocol import CaptionsOf, Protocol
from .results import UsedFile

COCO: Final = "https://cocodataset.org"
_WEIGHTS: Final = "weights @{}"
"""As contracts end: of one file the first digits of its SHA-256, of several those of a hash over theirs."""


class Brought(NamedTuple):
    """What the user brings. model, seed: in place of the protocol's. captions: COCO's file; images: its pictures.

    settings: nested, over those of the protocol.
    """

    output: Path
    model: str | None = None
    seed: int | None = None
    captions: Path | None = None
    images: Path | None = None
    settings: Mapping[str, Any] = {}


class Step(NamedTuple):
    """A part of the work: what, where, how often, and what one needs; None: not known, or next to nothing."""

    what: str
    folder: Path
    times: int
    needs: Needs | None


class Piece(NamedTuple):
    """What must be at hand. known: its hash in words, as far as that is known. missing: why it is not there."""

    role: str
    name: str
    known: str | None
    missing: str | None


OF_YOURS: Final = "a protocol of yours (docs/reproduce.md)"
OWN: Final = {
    "model": "--model", "seed": "--seed", "output": "-o", "concept": OF_YOURS, "train.beta": OF_YOURS,
}  # fmt: skip
"""Settings that a protocol has of its own, so that one of the user's is not read, and what to do in its place."""
BY_BETA: Final = ("train.learning_rate", "train.prior_weight")
"""Settings that follow β in the recipe `paper`, so that they are not read there either."""


def given_settings(protocol: Protocol, brought: Brought, concept: str, folder: Path) -> dict[str, Any]:
    """The settings of a run of the protocol, nested; what the user brings stands above the protocol's."""
    own = {
        "model": brought.model or protocol.model,
        "concept": concept,
        "output": str(folder),
        "seed": protocol.seed if brought.seed is None else brought.seed,
    }
    return merge(protocol.settings, brought.settings, own)


def caption_settings(protocol: Protocol, brought: Brought, beta: float) -> dict[str, Any]:
    """The settings of the run that asks captions: these, and of every other prompt set one."""
    assert protocol.captions is not None
    assert brought.captions is not None
    few = {"prompts": 1, "keep_prompts": 1, "neighbour_prompts": 1, "inversion_prompts": 0}
    asked = {"captions": str(brought.captions), "caption_prompts": protocol.captions.prompts}
    reference = {"reference": str(brought.images)} if brought.images is not None else {}
    folder = caption_folder(brought.output, beta)
    whole = given_settings(protocol, brought, protocol.concepts[0], folder)
    return merge(whole, {"train": {"beta": beta}, "evaluate": {**few, **asked, **reference}})


def caption_folder(output: Path, beta: float) -> Path:
    """The run that asks captions at a β."""
    return output / "captions" / f"beta-{beta:g}"


def changes(protocol: Protocol, settings: Settings, concept: str) -> list[str]:
    """The settings of a run that are not the protocol's, in words; where it runs and writes is none of them."""
    plain = resolve_settings(
        given_settings(protocol, Brought(settings.output / ".none"), concept, settings.output / ".none")
    )
    sides = [_flat(one.model_dump(mode="json", exclude={"output", "device"})) for one in (plain, settings)]
    keys = dict.fromkeys([*sides[0], *sides[1]])
    return [
        f"{key}: {sides[1].get(key)}, not {sides[0].get(key)}" for key in keys if sides[0].get(key) != sides[1].get(key)
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return found


def check_captions(protocol: Protocol, path: Path) -> None:
    """Fail for captions that are not those which the protocol asks: of another year, or not all of them."""
    wanted = protocol.captions
    if wanted is None:
        raise DuoError(f"{protocol.name} asks no captions", got=str(path), hint="leave --captions out")
    found = read_coco(path)
    hint = f"captions_{wanted.split}{wanted.year}.json of COCO's annotations, {COCO}"
    if found.year != wanted.year:
        problem = f"{printable(path)} is not of the year that {protocol.name} asks"
        raise DuoError(problem, got=f"{found.year or 'no year in it'}, not {wanted.year}", hint=hint)
    if len(found.texts) != wanted.images:
        got = f"captions of {len(found.texts)} images, not of {wanted.images}"
        raise DuoError(f"{printable(path)} is not the whole file, or of another part of COCO", got=got, hint=hint)


def _check_settings(protocol: Protocol, brought: Brought) -> None:
    """Fail for settings of the user's that would not be read."""
    recipe = merge(protocol.settings, brought.settings).get("recipe")
    fixed = {**OWN, **(dict.fromkeys(BY_BETA, OF_YOURS) if recipe == "paper" else {})}
    if unread := [key for key in _flat(brought.settings) if key in fixed]:
        problem = f"{unread[0]} is the protocol's own, and a setting of it would not be read"
        raise DuoError(problem, got=", ".join(f"--set {key}" for key in unread), hint=fixed[unread[0]])


def check_brought(protocol: Protocol, brought: Brought) -> None:
    """Fail for what the user brings and the protocol cannot use, before anything is made."""
    _check_settings(protocol, brought)
    if brought.captions is not None:
        check_captions(protocol, brought.captions)
    if brought.images is not None:
        if brought.captions is None:
            raise DuoError("--images are those of the captions", got="no --captions", hint="--captions FILE")
        reference_pictures(brought.images)


def used_files(brought: Brought) -> list[UsedFile]:
    """What of the user's a reproduction uses, with its hash."""
    found = []
    if (path := brought.captions) is not None:
        found.append(UsedFile(role="captions", name=path.name, sha256=sha256_of(path)))
    if (folder := brought.images) is not None:
        digest = names_digest(reference_pictures(folder))
        found.append(UsedFile(role="images of the captions", name=folder.name, sha256=digest))
    return found


def pieces(protocol: Protocol, brought: Brought) -> Iterator[Piece]:
    """All that must be at hand, in order: model, detectors, networks of preservation, captions, images."""
    model = brought.model or protocol.model
    faults, family = model_faults(model)
    role, reason = (
        ("model, by its index in the hub's cache", why_no_model(model)) if is_hub_id(model) else ("model", None)
    )
    known = _words("fingerprint {}", known_fingerprint(model) if not faults else None)
    yield Piece(role, model, known, faults[0].reason if faults else reason)
    settings = resolve_settings(given_settings(protocol, brought, protocol.concepts[0], brought.output))
    if family is not None:
        yield from _detectors(protocol, settings, family)
        known = _words(_WEIGHTS, known_clip(family))
        yield Piece("CLIP of the CLIP score and CMMD", family, known, why_no_clip(family))
        yield Piece("network of LPIPS", FILE, f"SHA-256 begins with {DIGEST}", why_no_lpips())
    if protocol.captions is not None:
        yield from _captions(protocol, protocol.captions, brought)


def _words(form: str, digest: str | None) -> str | None:
    return None if digest is None else form.format(digest)


def why_no_model(source: str) -> str | None:
    """Why a model of the hub is not on this machine, as far as its cache tells; None: it is."""
    from huggingface_hub import try_to_load_from_cache

    there = isinstance(try_to_load_from_cache(source, "model_index.json"), str)
    return None if there else "it is fetched from the hub, which may ask for an account"


def _detectors(protocol: Protocol, settings: Settings, family: str) -> Iterator[Piece]:
    asked: dict[str, Piece] = {}
    for name in protocol.concepts:
        concept = load_concept(name)
        for spec in (concept.detector_named(settings.detector), *concept.scorers(settings.evaluate.judges, None)):
            try:
                check_detector(spec.name, family, tuple(spec.labels), spec.threshold)
                known = _words(_WEIGHTS, known_weights(spec.name, tuple(spec.labels)))
                asked.setdefault(spec.name, Piece("detector", spec.name, known, None))
            except DuoError as error:
                asked[spec.name] = Piece("detector", spec.name, None, f"{error.reason}; {error.hint}")
    yield from asked.values()


def _captions(protocol: Protocol, wanted: CaptionsOf, brought: Brought) -> Iterator[Piece]:
    name = f"captions_{wanted.split}{wanted.year}.json"
    if (path := brought.captions) is None:
        yield Piece("captions", name, None, f"--captions FILE, from {COCO}; without it nothing is told of them")
    else:
        missing = None
        try:
            check_captions(protocol, path)
        except DuoError as error:
            missing = error.reason
        known = _words("SHA-256 {}", sha256_of(path) if path.is_file() else None)
        yield Piece("captions", str(path), known, missing)
    if (folder := brought.images) is None:
        yield Piece(
            "images", f"{wanted.split}{wanted.year}/", None, "--images FOLDER; without it FID is from the original"
        )
        return
    try:
        pictures = reference_pictures(folder)
    except DuoError as error:
        yield Piece("images", str(folder), None, error.reason)
    else:
        known = _words("digest of their names and sizes {}", names_digest(pictures))
        yield Piece(f"images, {len(pictures)}", str(folder), known, None)


def steps(protocol: Protocol, brought: Brought) -> list[Step]:
    """What will be done, in order."""
    found = []
    for concept, name in zip(protocol.concepts, protocol.names, strict=True):
        folder = brought.output / name
        needs = _needs(given_settings(protocol, brought, concept, folder))
        found.append(Step(f"{name}: pairs, DUO and its evaluation, a β each", folder, len(protocol.betas), needs))
    if len(protocol.concepts) > 1:
        found.append(
            Step("the sum of the adapters, on each concept", brought.output / "composed", len(protocol.betas), None)
        )
    for one in protocol.attacks:
        what = f"attack {one.name}, {one.preset} budget, {one.prompts} prompts a concept; in no estimate of time"
        found.append(Step(what, brought.output, len(protocol.betas), None))
    if protocol.captions is not None and brought.captions is not None:
        needs = _needs(caption_settings(protocol, brought, protocol.betas[0]))
        what = f"{protocol.captions.prompts} captions"
        found.append(Step(what, brought.output / "captions", len(protocol.betas), needs))
    return found


def _needs(given: Mapping[str, Any]) -> Needs | None:
    settings = resolve_settings(given)
    return estimate(settings, load_concept(settings.concept))


def plan_lines(protocol: Protocol, brought: Brought) -> list[str]:
    """The plan for people: what is done, what must be at hand, and what is compared within which tolerance."""
    _check_settings(protocol, brought)
    lines = [f"{protocol.title} ({protocol.source})", "", "what is done:"]
    for step in steps(protocol, brought):
        cost = ""
        if step.needs is not None:
            hours = step.times * (step.needs.training_hours + step.needs.sampling_hours)
            cost = f"; at most {hours:.1f} h at {RATE:g} TFLOP/s, {step.times * step.needs.disk:.0f} GB of disk, "
            cost += f"{max(step.needs.training, step.needs.sampling):.0f} GB of device memory"
        lines.append(f"  {step.times} × {step.what} → {step.folder}{cost}")
    lines += ["", "what must be at hand:"]
    for piece in pieces(protocol, brought):
        state = "there" if piece.missing is None else f"MISSING: {piece.missing}"
        known = f", {piece.known}" if piece.known else ""
        lines.append(f"  {piece.role}: {piece.name}{known}: {state}")
    lines += ["", f"what is compared, by tolerances that are part of the protocol ({protocol.digest[:16]}):"]
    for row in protocol.published:
        where = f"{row.attack} ({row.preset})" if row.attack else row.scenario
        of = f"β {row.beta:g}" if row.beta is not None else "original"
        lines.append(f"  {of}, {row.metric}, {where}: {row.value:g} ± {row.tolerance:g} ({row.source})")
    if not protocol.published:
        lines.append("  nothing: no number of it is at hand")
    lines += [
        "",
        "what is not as it was published:",
        *(f"  {text}" for text in protocol.departures or ["nothing known"]),
    ]
    return lines
