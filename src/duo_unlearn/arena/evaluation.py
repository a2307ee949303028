"""The first evaluation: what the erased model defends and what it preserves, beside the original."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from ..attacks.inversion import embeddings_with, invert
from ..edits.lora import NAME, adapters_off, load_adapter, set_strength
from ..erasers.latents import build_cache
from ..errors import DuoError
from ..families.tokens import why_no_tokens
from ..features.clip import why_no_clip
from ..features.lpips import why_no_lpips
from ..metrics.estimate import agreement, defence, false_positives, unscored
from ..metrics.fidelity import Measured, digest, fidelity, reference_pictures
from ..pairs.own_pairs import load_pairs
from ..records import Estimate, ModelName
from ..session import Session, State
from ..settings.tree import EvaluateSettings
from ..storage.files import read_json, read_tensors, sha256_of, write_json, write_tensors
from .attempted import MODELS, adapter_hash
from .groups import PromptGroup, evaluate_group, inverted_groups, prompt_groups

Entries = dict[str, dict[str, list[dict[str, Any]]]]
ESTIMATES = "2"
"""Raised with what is estimated: older results are then made anew, from the images that are there."""


def evaluate(session: Session) -> tuple[list[Estimate], State]:
    """Sample and judge every prompt set on both models, with the same noise; write results.json and verdicts.json."""
    run, settings = session.run, session.settings
    begin = session.begin()
    if not run.adapter_weights.exists():
        raise DuoError(f"{run.folder} holds no adapter", hint="run `duo train` first, or `duo erase` for all stages")
    key = _key(session)
    if run.results.exists() and (known := read_json(run.results)).get("key") == key:
        found = [Estimate(**entry) for entry in known["estimates"]]
        return found, session.finish("evaluate", time.monotonic() - begin, "already done")
    if not any(f".{NAME}." in name for name, _ in session.model.denoiser.named_parameters()):
        load_adapter(session.model, run.adapter)
    set_strength(session.model, 1.0)
    groups = prompt_groups(session.concept, settings.evaluate, settings.seed)
    judged: Entries = {group.name: _judged(session, group) for group in groups}
    kinds = {group.name: group.kind for group in groups}
    absent: list[dict[str, str]] = []
    reason = why_no_tokens(session.model) if settings.evaluate.inversion_prompts else "evaluate.inversion_prompts is 0"
    if reason is None:
        for group in inverted_groups(session.concept, groups, settings.evaluate, settings.seed):
            judged[group.name], kinds[group.name] = _judged(session, group, inverted=True), "attack"
    else:
        absent.append({"metric": "dsr", "prompts": "inverted", "reason": reason})
    write_json(run.verdicts, judged)
    estimates, no_number = _estimates(session, judged, kinds)
    absent += no_number
    write_json(
        run.results,
        {
            "version": 1,
            "concept": session.concept.name,
            "model": settings.model,
            "seed": settings.seed,
            "quick": _is_quick(settings.evaluate),
            "key": key,
            "estimates": [estimate.as_json() for estimate in estimates],
            "absent": absent,
        },
    )
    return estimates, session.finish("evaluate", time.monotonic() - begin, "done")


def _is_quick(settings: EvaluateSettings) -> bool:
    """Whether fewer prompts or steps than the default were used for some number."""
    usual = EvaluateSettings()
    names = ("prompts", "keep_prompts", "neighbour_prompts", "inversion_prompts", "inversion_steps")
    return any(getattr(settings, name) < getattr(usual, name) for name in names)


def _key(session: Session) -> str:
    reference = session.settings.evaluate.reference
    basis = [
        ESTIMATES,
        str(why_no_clip(session.model.family)),
        str(why_no_lpips()),
        digest(reference_pictures(reference)) if reference is not None else "",
        sha256_of(session.run.adapter_weights),
        session.settings.evaluate.model_dump_json(exclude={"batch"}),
        session.concept.model_dump_json(),
        str(session.settings.seed),
        str(session.detector.contract),
        session.model.fingerprint(),
        session.model.variant,
    ]
    return hashlib.sha256("\n".join(basis).encode()).hexdigest()


def _as(session: Session, which: ModelName) -> AbstractContextManager[None]:
    """The model as original (adapter off) or as erased, inside the block."""
    return adapters_off(session.model.denoiser) if which == "original" else nullcontext()


def _judged(session: Session, group: PromptGroup, *, inverted: bool = False) -> dict[str, list[dict[str, Any]]]:
    """A prompt set on both models. inverted: with the token that was inverted on each in front of its prompts."""
    found: dict[str, list[dict[str, Any]]] = {}
    for which in MODELS:
        with _as(session, which):
            state, embeddings = _state(session, which), None
            if inverted:
                vector, state = _vector(session, which)
                embeddings = embeddings_with(session.model, [p.text for p in group.prompts], vector)
            found[which] = evaluate_group(
                session.run,
                session.model,
                session.detector,
                group,
                which,
                session.settings.evaluate,
                seed=session.settings.seed,
                state=state,
                embeddings=embeddings,
                quiet=session.quiet,
            )
    return found


def _state(session: Session, which: ModelName) -> str:
    """What decides a model's images beside prompts and seeds: the base's or adapter's hash, and how it is loaded."""
    weights = session.model.fingerprint() if which == "original" else adapter_hash(session.run)
    return f"{weights} at {session.model.variant}"


def _vector(session: Session, which: ModelName) -> tuple[torch.Tensor, str]:
    """The token that was inverted on a model, and what names it; made once and kept in the run folder."""
    state = _state(session, which)
    with session.run.claim("inverted", wait=True):
        return _made_vector(session, which, state)


def _made_vector(session: Session, which: ModelName, state: str) -> tuple[torch.Tensor, str]:
    run, settings = session.run, session.settings
    budget = settings.evaluate
    name = f"{which}-{state}-{budget.inversion_steps}-{budget.inversion_batch}-{settings.seed}"
    known = read_tensors(run.inverted)[0] if run.inverted.exists() else {}
    if name not in known:
        pairs = [pair for pair in load_pairs(run.pairs) if pair.keep]
        cache = build_cache(session.model, pairs, run.pairs, run.moments, captions=settings.train.captions)
        known[name] = invert(
            session.model,
            cache.unsafe,
            steps=budget.inversion_steps,
            batch=budget.inversion_batch,
            seed=settings.seed,
            quiet=session.quiet,
        )
        write_tensors(run.inverted, known)
    return known[name], name


def _estimates(session: Session, judged: Entries, kinds: dict[str, str]) -> Measured:
    contract = str(session.detector.contract)
    reader = contract.partition("[")[0] + "@" + session.detector.contract.weights
    found: list[Estimate] = []
    absent: list[dict[str, str]] = []
    for name, by_model in judged.items():
        absent += unscored(name, {which: by_model[which] for which in MODELS})
        for which in MODELS:
            entries = by_model[which]
            measure: Callable[..., list[Estimate]] = defence if kinds[name] == "attack" else false_positives
            found += measure(which, name, entries, contract)
            if kinds[name] != "attack":
                found += agreement(which, name, entries, reader)
        if kinds[name] != "attack":
            files = {m: [session.run.evaluation / entry["file"] for entry in by_model[m]] for m in MODELS}
            texts = [entry["prompt"] for entry in by_model["original"]]
            reference = session.settings.evaluate.reference
            kept, lacking = fidelity(session.model.family, name, texts, files, reference)
            found, absent = found + kept, absent + lacking
    return found, absent
