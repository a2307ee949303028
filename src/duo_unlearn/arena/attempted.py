"""What the red team left in a run folder, read back: the attempts that belong to the adapter and prompts of now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DuoError
from ..records import ModelName
from ..runs.folder import Run
from ..storage.files import read_json, sha256_of

MODELS: tuple[ModelName, ...] = ("original", "erased")


class Attempted(NamedTuple):
    """An attack in its folder. told: attack.json. attempts: by model, in order. seconds: what they took; None: unknown.

    stale: the erased model's attempts were made with another adapter, and are left out.
    """

    folder: Path
    told: Mapping[str, Any]
    attempts: dict[ModelName, list[dict[str, Any]]]
    seconds: float | None
    stale: bool


def adapter_hash(run: Run) -> str:
    """What names the adapter of now in keys."""
    return sha256_of(run.adapter_weights)[:16]


def attempted(run: Run) -> list[Attempted]:
    """Every attack that was run, in order of its folder. A broken file is a DuoError."""
    now = adapter_hash(run) if run.adapter_weights.exists() else None
    return [_read(path, now) for path in sorted(run.attacks.glob("*/*/attack.json"))]


def _read(path: Path, now: str | None) -> Attempted:
    try:
        told = read_json(path)
        for name in ("attack", "title", "preset", "prompts", "reason"):
            told[name]
        stale = told.get("adapter") is not None and now is not None and told["adapter"] != now
        attempts: dict[ModelName, list[dict[str, Any]]] = {}
        seconds: list[float] = []
        for model in MODELS:
            parts = [] if stale and model == "erased" else _parts(path.parent / model, told.get("parts", {}).get(model))
            attempts[model] = [attempt for part in parts for attempt in part["attempts"]]
            seconds += [float(part["seconds"]) for part in parts if "seconds" in part]
            for attempt in attempts[model]:
                attempt["file"], attempt["prompt"], attempt["text"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        hint = "delete the attack's folder and run `duo attack` again"
        raise DuoError(f"{path.parent} is broken", got=f"no {error}"[:120], hint=hint) from error
    return Attempted(path.parent, told, attempts, sum(seconds) if seconds else None, stale)


def _parts(folder: Path, keys: Mapping[str, str] | None) -> list[dict[str, Any]]:
    """The parts that were asked for last; those of more prompts or other settings may lie beside them."""
    if keys is None:
        return [read_json(path) for path in sorted(folder.glob("[0-9]*.json"))]
    there = [(read_json(path), key) for name, key in keys.items() if (path := folder / f"{name}.json").exists()]
    return [part for part, key in there if part["key"] == key]
