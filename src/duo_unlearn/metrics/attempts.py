"""Sampling a prompt set on a model, and judging it: images and verdicts on disk, so that nothing is sampled twice."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ..concepts.spec import Concept
from ..concepts.store import prompts_of, splitter
from ..config import EvaluateSettings
from ..detectors.base import AttributeReader, Detector
from ..families.base import Conditioning, Model, SampleRequest, seed_of
from ..progress import progress
from ..records import ModelName, Prompt
from ..run import Run
from ..storage import read_json, write_bytes, write_json


class PromptGroup(NamedTuple):
    """A named prompt set. kind: "attack" asks for the concept, "keep" and "neighbour" must go on working."""

    name: str
    kind: str
    prompts: list[Prompt]


def prompt_groups(concept: Concept, settings: EvaluateSettings, seed: int) -> list[PromptGroup]:
    """The concept's prompt sets, filled; for the mini world from combinations that its training never saw."""
    accept = splitter(concept, held_out=True)
    groups = [
        PromptGroup(name, "attack", prompts_of(concept, [chosen], settings.prompts, f"{seed}/{name}", accept))
        for name, chosen in concept.attacks.items()
    ]
    if concept.keep:
        kept = prompts_of(concept, concept.keep, settings.keep_prompts, f"{seed}/keep", accept)
        groups.append(PromptGroup("keep", "keep", kept))
    for name, chosen_sets in concept.neighbours.items():
        near = prompts_of(concept, chosen_sets, settings.neighbour_prompts, f"{seed}/{name}", accept)
        groups.append(PromptGroup(name, "neighbour", near))
    return groups


def inverted_groups(
    concept: Concept, groups: Sequence[PromptGroup], settings: EvaluateSettings, seed: int
) -> list[PromptGroup]:
    """The prompts that an inverted token is put in front of: ones that ask for the concept, and plain ones.

    Those that ask are the published attack's. On plain ones the token alone must carry the concept.
    """
    count, found = settings.inversion_prompts, []
    if asking := next((group for group in groups if group.kind == "attack"), None):
        found.append(PromptGroup("inverted", "attack", asking.prompts[:count]))
    if concept.plain is not None:
        accept = splitter(concept, held_out=True)
        plain = prompts_of(concept, [concept.plain], count, f"{seed}/plain", accept)
        found.append(PromptGroup("inverted-plain", "attack", plain))
    return found


def evaluate_group(
    run: Run,
    model: Model,
    detector: Detector,
    group: PromptGroup,
    which: ModelName,
    settings: EvaluateSettings,
    *,
    seed: int,
    state: str,
    embeddings: Sequence[Conditioning] | None = None,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Sample and judge one set on one model as it stands; gives an entry an attempt (see verdicts.json).

    state: what else decides the images (the base's or the adapter's hash). Entries made under the same key are read
    from the run folder instead.
    """
    prompts = [[p.text, dict(p.shows)] for p in group.prompts]
    basis = [prompts, settings.steps, settings.guidance, seed, state, str(detector.contract)]
    key = hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:16]
    path = run.evaluation / "parts" / f"{group.name}.{which}.json"
    if path.exists() and (known := read_json(path)).get("key") == key:
        entries: list[dict[str, Any]] = known["entries"]
        # Someone may have deleted images that are not for every eye; they are made again.
        if all((run.evaluation / entry["file"]).exists() for entry in entries):
            return entries
    # The original and the erased model get the same seed, so the same noise.
    requests = [
        SampleRequest(
            prompt.text, seed_of(seed, "evaluate", group.name, i), embedding=embeddings[i] if embeddings else None
        )
        for i, prompt in enumerate(group.prompts)
    ]
    with progress(f"{group.name}: {which}", len(requests), quiet=quiet) as report:
        images = model.sample(
            requests, steps=settings.steps, guidance=settings.guidance, batch=settings.batch, report=report
        )
    entries = judge(detector, images, group.prompts, [r.seed for r in requests])
    folder = run.images(group.name, which)
    for i, (entry, image) in enumerate(zip(entries, images, strict=True)):
        entry["file"] = str(_save(image, folder / f"{i:04}.png").relative_to(run.evaluation))
    write_json(path, {"key": key, "entries": entries})
    return entries


def judge(
    detector: Detector, images: list[Image.Image], prompts: Sequence[Prompt], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """One entry an image: prompt, seed, what it should show, the verdict, and the attributes read off it."""
    verdicts = detector.detect(images)
    read = detector.read(images) if isinstance(detector, AttributeReader) else [{} for _ in images]
    return [
        {
            "prompt": prompt.text,
            "seed": seed,
            "shows": dict(prompt.shows),
            "detected": verdict.detected,
            "score": verdict.score,
            "read": dict(attributes),
        }
        for prompt, seed, verdict, attributes in zip(prompts, seeds, verdicts, read, strict=True)
    ]


def _save(image: Image.Image, path: Path) -> Path:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())
    return path
