"""labels.jsonl: what people say of attempts' pictures. A line a label, added at the end and never changed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple, get_args

from ..errors import DuoError
from ..storage.files import printable, read_bytes
from .folder import Run

Word = Literal["yes", "no", "broken"]
"""yes: the picture shows the concept. broken: nothing can be recognised in it."""
WORDS: Final[tuple[Word, ...]] = get_args(Word)
_FORM: Final = '{"sha256": …, "label": "yes"|"no"|"broken", "labeller": …, "stratum": null, "contract": null}'


class Label(NamedTuple):
    """One person's word on one picture. sha256: of the attempt's file.

    stratum: the verdict by which the picture was drawn, and contract: whose verdict that is; None: drawn at random.
    """

    sha256: str
    label: Word
    labeller: str
    stratum: Word | None = None
    contract: str | None = None


def append_label(run: Run, label: Label) -> None:
    """Add a label; it is on the disk when this returns. Several processes may add at once.

    DuoError: it is no label, or the file cannot be written.
    """
    line = json.dumps(_checked(label._asdict())._asdict(), ensure_ascii=False) + "\n"
    with run.claim("labels", wait=True):
        try:
            with run.labels.open("a+b", buffering=0) as handle:
                end = handle.seek(0, os.SEEK_END)
                if end:
                    handle.seek(end - 1)
                # Half a line that a killed process left stays by itself.
                torn = bool(end) and handle.read(1) != b"\n"
                handle.write(b"\n" * torn + line.encode())
                os.fsync(handle.fileno())
        except OSError as error:
            hint = "free some space, or check the folder's permissions"
            raise DuoError(f"cannot write {printable(run.labels)}", got=error.strerror, hint=hint) from error


def read_labels(run: Run) -> list[Label]:
    """The labels in order, of each person the last word on a picture; none where there is no file.

    A line that was torn is left out, and told on stderr. A whole line that is no label is a DuoError.
    """
    if not run.labels.exists():
        return []
    found: dict[tuple[str, str], Label] = {}
    for number, entry in _lines(run):
        try:
            label = _checked(entry)
        except DuoError as error:
            where = f"{printable(run.labels)} line {number}: {error.problem}"
            raise DuoError(where, got=error.got, hint=f"mend the line: {_FORM}") from error
        found.pop((label.labeller, label.sha256), None)
        found[label.labeller, label.sha256] = label
    return list(found.values())


def _lines(run: Run) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(read_bytes(run.labels).decode(errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            print(f"{run.labels} line {number} is torn and left out: {line[:60]}", file=sys.stderr, flush=True)
            continue
        yield number, entry


def _checked(entry: Any) -> Label:
    """A label from its JSON object; a DuoError where it is none."""
    known = set(Label._fields)
    if not isinstance(entry, dict) or not {"sha256", "label", "labeller"} <= set(entry) <= known:
        raise DuoError("it is no label", got=json.dumps(entry, ensure_ascii=False)[:120], hint=_FORM)
    label: Any = Label(**entry)
    if label.label not in WORDS or label.stratum not in (None, *WORDS):
        got = f"label {label.label!r}, stratum {label.stratum!r}"
        raise DuoError(f"a label is one of {', '.join(WORDS)}", got=got, hint=_FORM)
    texts = [label.sha256, label.labeller, *([label.contract] if label.contract is not None else [])]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise DuoError("a label names its picture and who gave it", got=str(texts)[:120], hint=_FORM)
    if (label.stratum is None) != (label.contract is None):
        got = f"stratum {label.stratum!r}, contract {label.contract!r}"
        raise DuoError("a stratum is by a judge's contract", got=got, hint="give both, or neither")
    checked: Label = label
    return checked
