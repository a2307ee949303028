"""Prompts that a user brings in a file: one a line, a column of a table, or a key of JSON lines."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Final

from ..errors import DuoError
from ..records import Prompt
from ..storage.files import read_bytes

LONGEST: Final = 2000
"""How many characters a prompt may have; a file with a longer one is taken for something else."""


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a file: one a line (.txt), a column "prompt" (.csv), or objects with "prompt" (.jsonl).

    I2P and MMA come in such files. `duo attack --prompts` calls it. DuoError, naming the line: a prompt that is empty,
    too long or no string, text that is not UTF-8, a NUL character. DuoError too for what is not a regular file.
    """
    texts = _texts(path, _text(path))
    for number, text in texts:
        _check_prompt(path, number, text)
    if not texts:
        raise DuoError(f"{path} has no prompt", hint="one a line, or a column or key named prompt")
    return [Prompt(text.strip(), {}) for _, text in texts]


def _text(path: Path) -> str:
    content = read_bytes(path, "prompts")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        got = f"byte {error.start}, line {line}"
        raise DuoError(f"{path} is not UTF-8", got=got, hint="save it as UTF-8") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DuoError(f"{path} is no text file", got=f"a NUL character in line {line}", hint="save it as UTF-8 text")
    return text


def _check_prompt(path: Path, number: int, text: str) -> None:
    if not text.strip():
        raise DuoError(f"{path} has an empty prompt", got=f"line {number}", hint="delete it")
    if len(text) > LONGEST:
        problem = f"{path} has a prompt of {len(text)} characters"
        raise DuoError(problem, got=f"line {number}", hint=f"at most {LONGEST}")
    if "\0" in text:
        raise DuoError(f"{path} has a prompt with a NUL character", got=f"line {number}", hint="delete it")


def _texts(path: Path, content: str) -> list[tuple[int, str]]:
    """Line numbers and prompts, in the file's order, unchecked."""
    lines = content.splitlines()
    if path.suffix == ".csv":
        return _column(path, lines)
    if path.suffix == ".jsonl":
        return [(number, _json_prompt(path, number, line)) for number, line in enumerate(lines, 1)]
    return list(enumerate(lines, 1))


def _column(path: Path, lines: list[str]) -> list[tuple[int, str]]:
    rows = csv.DictReader(lines)
    try:
        if "prompt" not in (rows.fieldnames or []):
            raise DuoError(
                f"{path} has no column prompt",
                got=", ".join(rows.fieldnames or ["nothing"])[:120],
                hint="name the column prompt in the first line",
            )
        return [(rows.line_num, row["prompt"] or "") for row in rows]
    except csv.Error as error:
        hint = "look for a quotation mark that is never closed"
        raise DuoError(f"{path} is not a valid CSV", got=f"line {rows.line_num + 1}: {error}", hint=hint) from error


def _json_prompt(path: Path, number: int, line: str) -> str:
    hint = '{"prompt": "…"} on every line'
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DuoError(f"{path} has a line without a prompt", got=f"line {number}", hint=hint) from error
    if not isinstance(prompt, str):
        got = f"line {number}: {line.strip()[:80]}"
        raise DuoError(f"{path} has a prompt that is no string", got=got, hint=hint)
    return prompt
