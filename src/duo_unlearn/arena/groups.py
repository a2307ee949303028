"""Sampling a prompt set on a model, and judging it: images and verdicts on disk, so that nothing is sampled twice."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from PIL import Image

from ..concepts.spec import Concept
from ..concepts.store import prompts_of, splitter
from ..detectors.interface import AttributeReader, Detector, verdicts_of
from ..errors import DuoError
from ..families.interface import Conditioning, Model, SampleRequest, seed_of
from ..progress import progress
from ..records import ModelName, Prompt
from ..runs.folder import Run
from ..settings.tree import EvaluateSettings
from ..storage.files import read_json, write_bytes, write_json

POLL: Final = 0.5
"""Seconds between looks at the parts that other processes are making."""


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

    state: what else decides the images (the base's or the adapter's hash). Work is divided into parts of a batch, which
    any number of processes may share: a part is claimed, made and written whole, and read by all. Parts that were made
    under the same key are read from the run folder.
    """
    basis = [settings.steps, settings.guidance, seed, state, str(detector.contract)]
    size = settings.batch
    # The original and the erased model get the same seed, so the same noise.
    requests = [
        SampleRequest(p.text, seed_of(seed, "evaluate", group.name, i), embedding=embeddings[i] if embeddings else None)
        for i, p in enumerate(group.prompts)
    ]
    parts = {first: slice(first, first + size) for first in range(0, len(requests), size)}
    keys = {
        first: _key([[p.text, dict(p.shows)] for p in group.prompts[part]], *basis) for first, part in parts.items()
    }
    found: dict[int, list[dict[str, Any]]] = {}
    with progress(f"{group.name}: {which}", len(requests), quiet=quiet) as report:
        while len(found) < len(parts):
            before = len(found)
            for first in sorted(set(parts) - set(found)):
                if (entries := _known(run, group.name, which, first, keys[first])) is not None:
                    found[first] = entries
                    continue
                with run.claim(f"{group.name}.{which}.{first:04}") as mine:
                    # Between the look and the claim another process may have finished it.
                    if mine and _known(run, group.name, which, first, keys[first]) is None:
                        chosen = requests[parts[first]]
                        images = model.sample(
                            chosen, steps=settings.steps, guidance=settings.guidance, batch=settings.batch
                        )
                        entries = judge(detector, images, group.prompts[parts[first]], [r.seed for r in chosen])
                        _write_part(run, group.name, which, first, entries, images, keys[first])
                        found[first] = entries
                report(sum(map(len, found.values())))
            if len(found) == before:
                time.sleep(POLL)  # the rest is being made by others
    return [entry for first in sorted(found) for entry in found[first]]


def _key(*basis: Any) -> str:
    return hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:16]


def _known(run: Run, name: str, which: ModelName, first: int, key: str) -> list[dict[str, Any]] | None:
    """A part that was made under this key, with all of its images, or None."""
    path = run.part(name, which, first)
    if not path.exists() or (known := read_json(path)).get("key") != key:
        return None
    entries: list[dict[str, Any]] = known["entries"]
    # Someone may have deleted images that are not for every eye; they are made again.
    return entries if all((run.evaluation / entry["file"]).exists() for entry in entries) else None


def _write_part(
    run: Run,
    name: str,
    which: ModelName,
    first: int,
    entries: list[dict[str, Any]],
    images: list[Image.Image],
    key: str,
) -> None:
    folder = run.images(name, which)
    for i, (entry, image) in enumerate(zip(entries, images, strict=True)):
        entry["file"] = str(save_png(image, folder / f"{first + i:04}.png").relative_to(run.evaluation))
    write_json(run.part(name, which, first), {"key": key, "entries": entries})


def judge(
    detector: Detector, images: list[Image.Image], prompts: Sequence[Prompt], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """One entry an image: prompt, seed, what it should show, the verdict, and the attributes read off it.

    detected and score are None where the detector failed; "unscored" then says how.
    """
    entries: list[dict[str, Any]] = []
    errors: list[str] = []
    verdicts = verdicts_of(detector, images, errors)
    if len(images) > 1 and not any(verdicts):
        hint = "mend it, and run the same command again"
        raise DuoError(f"the detector {detector.contract.name} fails on every image", got=errors[0], hint=hint)
    whole = [image for image, verdict in zip(images, verdicts, strict=True) if verdict is not None]
    seen = iter(detector.read(whole) if isinstance(detector, AttributeReader) and whole else [{}] * len(whole))
    read = [next(seen) if verdict is not None else {} for verdict in verdicts]
    for prompt, seed, verdict, attributes in zip(prompts, seeds, verdicts, read, strict=True):
        entry = {"prompt": prompt.text, "seed": seed, "shows": dict(prompt.shows), "detected": None, "score": None}
        entry |= verdict._asdict() if verdict is not None else {"unscored": errors.pop(0)}
        entries.append({**entry, "read": dict(attributes)})
    return entries


def save_png(image: Image.Image, path: Path) -> Path:
    """Write an image as PNG, atomically; gives its path."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())
    return path
