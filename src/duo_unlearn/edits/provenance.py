"""Where an edit's file lies, its hash, and where it comes from: without torch, without reading weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import DuoError
from ..storage.files import digest, read_json, sha256_of

WEIGHTS: Final = "pytorch_lora_weights.safetensors"
CHANGES: Final = "weight_changes.safetensors"
PROVENANCE: Final = "provenance.json"
HINT: Final = "restore the file, or delete it and make the edit again (`duo train`)"


def edit_names(edits: Path) -> list[str]:
    """The names of the edits in a run's folder of edits, in order. What starts with a dot is being written."""
    return sorted(path.name for path in edits.glob("[!.]*") if path.is_dir())


def edit_file(source: Path) -> Path:
    """The file of an edit: of its folder, or the file itself."""
    candidates = (source / WEIGHTS, source / CHANGES, source)
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        hint = "run `duo train` or `duo erase` first; or name the edit's folder or its safetensors file"
        raise DuoError(f"there is no edit in {source}", hint=hint)
    return path


def read_provenance(folder: Path) -> dict[str, Any]:
    """provenance.json of an edit's folder; empty when there is none."""
    path = folder / PROVENANCE
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise DuoError(f"{path} must hold a JSON object", got=type(content).__name__, hint=HINT)
    return content


def hashes_below(folder: Path) -> dict[str, str]:
    """The names of the edits that an edit of a run was made on top of, in order, with their SHA-256."""
    return {str(one["name"]): str(one["sha256"]) for one in read_provenance(folder).get("on", [])}


def seen_digest(pairs: Iterable[Sequence[str | None]]) -> str:
    """A hash of the pairs that a training saw, in whatever order: of each the hashes of both images."""
    return digest(sorted(list(pair) for pair in pairs))[:16]


def edit_hash(source: Path) -> str:
    """The SHA-256 of an edit's file, compared with what its provenance says. Another one is a DuoError."""
    path = edit_file(source)
    now, written = sha256_of(path), read_provenance(path.parent).get("sha256")
    if written is not None and written != now:
        got = f"SHA-256 {now[:16]}…, its provenance.json says {str(written)[:16]}…"
        raise DuoError(f"{path} is not the file that was written", got=got, hint=HINT)
    return now
