"""metrics.jsonl: a line a step of a training, added, read, and cut where a training is taken up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DuoError
from ..storage.files import read_bytes, write_text


def append_line(path: Path, line: Mapping[str, float]) -> None:
    """Add a step's figures to metrics.jsonl."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="\n") as handle:
            handle.write(json.dumps(dict(line)) + "\n")
    except OSError as error:
        raise DuoError(
            f"cannot write {path}", got=error.strerror or str(error), hint="free some space; it resumes"
        ) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that are whole: the last one may have been cut off when its process died."""
    lines = []
    for line in read_bytes(path).decode(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            lines.append(entry)
    return lines


def keep_lines(path: Path, step: int) -> list[dict[str, Any]]:
    """Cut metrics.jsonl to the lines up to `step`, so that a resumed run does not write a step twice; gives them."""
    if not path.exists():
        return []
    kept = [line for line in read_lines(path) if line["step"] <= step]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
    return kept
