"""What an attacker of a system has: the model with its edits and guards on, the original, and images of the concept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

from PIL import Image

from ..attacks.interface import Target
from ..concepts.joint import rows_of
from ..detectors.interface import verdicts_of
from ..edits.interface import edits_off
from ..edits.provenance import WEIGHTS, edit_file
from ..families.denoising import Reader
from ..families.interface import Model, Moments, SampleRequest
from ..features.clip import clip_score, clip_similarity
from ..guards.inverted_negative import INVERTED_NEGATIVE
from ..records import Awareness
from ..session import Session
from ..storage.files import digest, seed_of
from ..storage.pictures import image_fault
from ..system import System
from .guarded_reader import GuardedReader
from .originals import Originals
from .plans import Plan

T = TypeVar("T")


def target_of(
    session: Session, system: System, search: Awareness | None, of: str | None = None, *, passing: bool = False
) -> Target:
    """The target of attacks, for a model on which the system is on. search: whether white-box ones see its guards.

    of: which of several concepts as one the attacker has pairs of; None: of all. passing: an image that no guard
    refused is what is sought, in place of one that the run's detector sees.
    """
    settings, model = session.settings.evaluate, session.model

    def sample(requests: Sequence[SampleRequest]) -> list[Image.Image]:
        return model.sample(requests, steps=settings.steps, guidance=settings.guidance, batch=settings.batch)

    def sample_original(requests: Sequence[SampleRequest]) -> list[Image.Image]:
        with edits_off(model):
            return sample(requests)

    return Target(
        model=model,
        reader=GuardedReader(model, settings.guidance) if search == "aware" else Reader(model),
        original=functools.partial(edits_off, model),
        originals=Originals(session.run, base_state(session), sample_original, settings.batch),
        detect=_passed if passing else functools.partial(_detect, session),
        sample=lambda requests: guarded(model, sample(requests)),
        score=lambda images, texts: _cosines(images, texts, functools.partial(clip_score, model.family)),
        similarity=lambda images, others: _cosines(images, others, functools.partial(clip_similarity, model.family)),
        moments=lambda: _moments(session, of),
        contrast=lambda: [contrast for _, contrast in pairs_of(session, of)],
        benign=session.benign,
        parts=edited_parts(model, system),
        seed=session.settings.seed,
        guidance=settings.guidance,
    )


def asked_of(session: Session, plan: Plan) -> str | None:
    """Which of several concepts as one a plan's attack learns from the pairs of; None: of all, or of no pairs."""
    return session.concept.asked_by(plan.scenario.name) if "pairs" in plan.attack.needs else None


def attack_seed(session: Session, plan: Plan) -> int:
    """The seed of a plan's attack: the run's, by which a guard that inverts a token learns too; there another one.

    With the same seed, batch and rate concept inversion would find the very token that the guard goes away from.
    """
    learnt = any(guard.name == INVERTED_NEGATIVE.name for guard in plan.system.guards)
    seed = session.settings.seed
    return seed_of(seed, "attacker") if learnt and plan.attack.is_white_box else seed


def pairs_of(session: Session, of: str | None) -> list[tuple[int, tuple[str, str]]]:
    """Pairs by their place among the run's, each with its prompts with and without the concept. of: as of targets."""
    contrast = session.contrast()
    rows = range(len(contrast)) if of is None else rows_of(session.concept, of, [unsafe for unsafe, _ in contrast])
    return [(row, contrast[row]) for row in rows]


def _moments(session: Session, of: str | None) -> Moments:
    whole = session.cache.unsafe
    if of is None:
        return whole
    rows = [row for row, _ in pairs_of(session, of)]
    return Moments(whole.mean[rows], whole.std[rows])


def base_state(session: Session) -> str:
    """What decides an image of the original model beside its prompt and seed."""
    settings, model = session.settings, session.model
    basis = [model.fingerprint(), model.variant, model.source, settings.evaluate.steps, settings.evaluate.guidance]
    # Spelt out: Python 3.12 writes an ordered dictionary otherwise, and a run may move between machines.
    scheduler = f"FrozenDict({list(model.pipe.scheduler.config.items())})"
    return digest([*basis, settings.checkpoint_config, scheduler])


def edited_parts(model: Model, system: System) -> tuple[str, ...]:
    """The pipeline's parts that a system's edits change, by their files' names and headers."""
    from safetensors import safe_open

    parts: dict[str, None] = {}
    for edit in system.edits:
        path = edit_file(edit.folder)
        if path.name == WEIGHTS:
            parts[model.denoiser_name] = None
            continue
        with safe_open(path, framework="numpy") as handle:
            parts |= dict.fromkeys(key.partition(".")[0] for key in handle.keys())  # noqa: SIM118
    return tuple(parts)


def guarded(model: Model, images: Sequence[Image.Image]) -> list[Image.Image | None]:
    """The images that every guard lets pass, in order; None in place of a refused one."""
    shown: list[Image.Image | None] = list(images)
    for hook in model.hooks:
        if hook.passes is not None:
            there = [i for i, image in enumerate(shown) if image is not None]
            passes = hook.passes([images[i] for i in there])
            for i, passed in zip(there, passes, strict=True):
                shown[i] = shown[i] if passed else None
    return shown


def _detect(session: Session, images: Sequence[Image.Image | None]) -> list[bool]:
    """Whether each image shows the concept. One that is refused, flat, or not judged is no success of a search."""
    pictures = [None if image is None or image_fault(image) else image for image in images]
    return [verdict is not None and verdict.detected for verdict in verdicts_of(session.detector, pictures, [])]


def _passed(images: Sequence[Image.Image | None]) -> list[bool]:
    """Whether each image was shown. One that is flat shows nothing."""
    return [image is not None and not image_fault(image) for image in images]


def _cosines(
    images: Sequence[Image.Image | None],
    others: Sequence[T],
    compare: Callable[[Sequence[Image.Image], Sequence[T]], list[float]],
) -> list[float]:
    """CLIP's cosine of each image and its text or other image; −1 for one that was refused."""
    there = [i for i, image in enumerate(images) if image is not None]
    cosines = [-1.0] * len(images)
    if there:
        shown = [image for image in images if image is not None]
        for i, cosine in zip(there, compare(shown, [others[i] for i in there]), strict=True):
            cosines[i] = cosine
    return cosines
