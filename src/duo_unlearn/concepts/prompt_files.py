"""Prompts that a user brings: one a line, a column of a table, a key of JSON lines, or a folder of T2VSafetyBench's.

Published sets are read as their authors give them. None is shipped, and what was read is told by its SHA-256.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import DuoError
from ..records import Prompt
from ..storage.files import digest, read_bytes, sha256_of
from .categories import T2V, categories_in

COLUMNS: Final = ("prompt", "adv_prompt", "sensitive prompt")
"""Names of the column or key that holds the prompt, the first of them that is there."""
CATEGORY_COLUMNS: Final = ("category", "categories")
OTHER_TABLES: Final = (".json", ".ndjson", ".tsv", ".tab", ".xml", ".yaml", ".yml")
"""Endings of texts that are no prompt a line, and of a form that is not read."""
LONGEST: Final = 2000
"""How many characters a prompt may have; a file with a longer one is taken for something else."""


class _Row(NamedTuple):
    """A line's number, its prompt and its categories, unchecked."""

    line: int
    text: str
    categories: str = ""


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a file: one a line (.txt), a column (.csv), or keys (.jsonl); or of T2VSafetyBench's folder.

    The column or key is "prompt" (I2P, UnlearnDiffAtk's and others' sets), or one of COLUMNS; "category" or
    "categories", where there is one, says what each is about. `duo attack --prompts` calls it. DuoError, naming the
    line: a prompt that is empty, too long or no string, an unknown category, text that is not UTF-8, a NUL character.
    DuoError too for what is no regular file.
    """
    if _is_folder(path):
        return _t2v_folder(path)
    rows = _rows(path, _text(path))
    for row in rows:
        _check_prompt(path, row.line, row.text)
    if not rows:
        raise DuoError(f"{path} has no prompt", hint="one a line, or a column or key named prompt")
    return [Prompt(r.text.strip(), {}, categories_in(r.categories, f"{path}, line {r.line},")) for r in rows]


def _is_folder(path: Path) -> bool:
    """Whether it is a folder; a name that no file can have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def prompts_digest(path: Path) -> str:
    """The SHA-256 of a file of prompts; of a folder, of its files' hashes."""
    files = _numbered(path) if _is_folder(path) else []
    return digest([sha256_of(file) for file, _ in files]) if files else sha256_of(path)


def _t2v_folder(folder: Path) -> list[Prompt]:
    """The prompts of 1.txt to 11.txt, whose numbers are their categories; those of time (12 to 14) are no pictures'."""
    return [
        prompt._replace(categories=(category,)) for file, category in _numbered(folder) for prompt in read_prompts(file)
    ]


def _numbered(folder: Path) -> list[tuple[Path, str]]:
    """T2VSafetyBench's files in a folder, each with its category. None is a DuoError."""
    files = [(folder / f"{number}.txt", category) for number, category in enumerate(T2V, 1)]
    there = [(file, category) for file, category in files if file.is_file()]
    if not there:
        hint = "a file of prompts, or T2VSafetyBench's folder of 1.txt to 14.txt"
        raise DuoError(f"{folder} is a folder without prompts", got="no 1.txt to 11.txt in it", hint=hint)
    return there


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
    if not is_whole(text):
        hint = "delete it, or write the character whole"
        raise DuoError(f"{path} has a prompt with half a character (a surrogate)", got=f"line {number}", hint=hint)


def is_whole(text: str) -> bool:
    r"""Whether no character is half a surrogate pair: JSON may hold one, "\ud83d", and no tokenizer reads it."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _rows(path: Path, content: str) -> list[_Row]:
    """The rows in the file's order, unchecked."""
    ending = path.suffix.lower()
    if ending in OTHER_TABLES:
        hint = "save it as .csv with a column prompt, as .jsonl, or as .txt with a prompt a line"
        raise DuoError(f"{path} has a form that prompts are not read from", got=path.suffix, hint=hint)
    if ending == ".csv":
        return _table(path, content)
    # Not `splitlines`: a prompt may hold other separators, which JSON allows too.
    whole = content.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    lines = whole.split("\n") if whole else []
    if ending == ".jsonl":
        return [_json_row(path, number, line) for number, line in enumerate(lines, 1)]
    return [_Row(number, line) for number, line in enumerate(lines, 1)]


def _table(path: Path, content: str) -> list[_Row]:
    rows = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    try:
        names = rows.fieldnames or []
        column, about = _named(names, COLUMNS), _named(names, CATEGORY_COLUMNS)
        if column is None:
            got = ", ".join(names or ["nothing"])[:120]
            raise DuoError(f"{path} has no column prompt", got=got, hint="name the column prompt in the first line")
        return [_Row(rows.line_num, row[column] or "", (row[about] or "") if about else "") for row in rows]
    except csv.Error as error:
        hint = "look for a quotation mark that is never closed"
        raise DuoError(f"{path} is not a valid CSV", got=f"line {rows.line_num + 1}: {error}", hint=hint) from error


def _named(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The column or key of the first wanted name that is there, in whatever case; the exact one comes first."""
    known = list(names)
    there = {**{name.strip().lower(): name for name in reversed(known)}, **{name: name for name in known}}
    return next((there[name] for name in wanted if name in there), None)


def _json_row(path: Path, number: int, line: str) -> _Row:
    hint = '{"prompt": "…"} on every line'
    try:
        entry = json.loads(line)
        prompt = entry[_named(entry, COLUMNS)]
        about = "" if (key := _named(entry, CATEGORY_COLUMNS)) is None else entry[key]
    except (ValueError, AttributeError, TypeError, RecursionError, KeyError) as error:
        raise DuoError(f"{path} has a line without a prompt", got=f"line {number}", hint=hint) from error
    if not isinstance(prompt, str) or not isinstance(about, str):
        got = f"line {number}: {line.strip()[:80]}"
        raise DuoError(f"{path} has a prompt or category that is no string", got=got, hint=hint)
    return _Row(number, prompt, about)
