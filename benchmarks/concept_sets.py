"""A concept with some of its prompt sets, for benchmarks that cannot ask all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from duo_unlearn.concepts.store import concept_path
from duo_unlearn.storage.files import write_text


def content_of(concept: str) -> dict[str, Any]:
    """What a concept file says."""
    content: dict[str, Any] = yaml.safe_load(concept_path(concept).read_text(encoding="utf-8"))
    return content


def with_sets(content: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """A concept that asks these prompt sets alone. What must stay is untouched."""
    return {**content, "attacks": {name: content["attacks"][name] for name in sets}}


def write_concept(path: Path, content: Mapping[str, Any]) -> str:
    """Write a concept file; its path, as options name a concept."""
    write_text(path, str(yaml.safe_dump(dict(content), sort_keys=False)))
    return str(path)
