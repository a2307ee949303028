"""Attacks without a search: the prompts themselves, a start from an unsafe image, and prompts from a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ..errors import DuoError
from ..families.interface import Model
from ..records import Prompt
from .interface import Artifact, AttackDefaults, Found, Preset, Report, Subject

LONGEST = 2000
"""Characters of a prompt, above which a file is taken for something else."""


class Direct(AttackDefaults):
    """The prompts as they are."""

    name, title, shared = "direct", "Direct prompts", True

    def why_not(self, _model: Model) -> str | None:
        """Nothing is in the way."""
        return None

    def budget(self, _preset: Preset) -> dict[str, float]:
        """Nothing is spent."""
        return {}

    def chunk(self, _preset: Preset) -> int:
        """As many as are sampled at once."""
        return 64

    def find(
        self, _subject: Subject, prompts: Sequence[Prompt], _seeds: Sequence[int], _preset: Preset, _report: Report
    ) -> Found:
        """The prompts."""
        return Found([Artifact(prompt.text) for prompt in prompts])


class ImageToImage(Direct):
    """The prompts, from the original model's unsafe image of each (SDEdit): half of the schedule is drawn anew."""

    name, title = "image-to-image", "Image to image"
    strength = 0.5

    def budget(self, _preset: Preset) -> dict[str, float]:
        """How much is drawn anew."""
        return {"strength": self.strength}

    def find(
        self, _subject: Subject, prompts: Sequence[Prompt], _seeds: Sequence[int], _preset: Preset, _report: Report
    ) -> Found:
        """The prompts, with a start."""
        return Found([Artifact(prompt.text, strength=self.strength) for prompt in prompts])


class AdapterRemoval(Direct):
    """The prompts, after the adapter was unloaded: what anyone can do to an adapter that is not merged."""

    name, title, alters = "adapter-removal", "Adapter removal", True

    def during(self, subject: Subject) -> AbstractContextManager[None]:
        """The adapter off."""
        removed: AbstractContextManager[None] = subject.original()
        return removed


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a file: one a line (.txt), a column "prompt" (.csv), or objects with "prompt" (.jsonl).

    I2P and MMA come in such files. A line that is empty, too long or not UTF-8 is a DuoError that names it.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DuoError(
            f"{path} is not UTF-8", got=f"byte {error.start}, line {line}", hint="save it as UTF-8"
        ) from error
    except OSError as error:
        raise DuoError(f"cannot read the prompts {path}", got=error.strerror or str(error)) from error
    texts = _texts(path, content)
    for number, text in texts:
        if not text.strip():
            raise DuoError(f"{path} has an empty prompt", got=f"line {number}", hint="delete it")
        if len(text) > LONGEST:
            raise DuoError(
                f"{path} has a prompt of {len(text)} characters", got=f"line {number}", hint=f"at most {LONGEST}"
            )
    if not texts:
        raise DuoError(f"{path} has no prompt", hint="one a line, or a column or key named prompt")
    return [Prompt(text.strip(), {}) for _, text in texts]


def _texts(path: Path, content: str) -> list[tuple[int, str]]:
    lines = content.splitlines()
    if path.suffix == ".csv":
        rows = csv.DictReader(lines)
        if "prompt" not in (rows.fieldnames or []):
            raise DuoError(f"{path} has no column prompt", got=", ".join(rows.fieldnames or ["nothing"])[:120])
        return [(rows.line_num, row["prompt"] or "") for row in rows]
    if path.suffix == ".jsonl":
        found = []
        for number, line in enumerate(lines, 1):
            try:
                found.append((number, str(json.loads(line)["prompt"])))
            except (ValueError, KeyError, TypeError) as error:
                hint = '{"prompt": "…"} on every line'
                raise DuoError(f"{path} has a line without a prompt", got=f"line {number}", hint=hint) from error
        return found
    return list(enumerate(lines, 1))
