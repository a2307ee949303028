"""Weights in transformers' format, from a folder or the hub: whether they are at hand, and the name of their bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from ..storage.files import sha256_of

DEFAULT_CLIP: Final = "openai/clip-vit-large-patch14"
"""The CLIP of the families with published models, and of detectors that name no other."""
_WHOLE: Final = ("model.safetensors", "model.safetensors.index.json")


def why_no_weights(source: str) -> str | None:
    """Why a model's weights are not on this machine, or None where they are. Nothing is loaded, nothing is fetched.

    source: a local folder, or a hub id, whose files are looked for in the hub's cache.
    """
    from huggingface_hub import try_to_load_from_cache

    folder = Path(source)
    if folder.is_dir():
        there = any(folder.glob("*.safetensors"))
        return None if there else f"{source} has no safetensors weights"
    try:
        cached = any(isinstance(try_to_load_from_cache(source, name), str) for name in _WHOLE)
    except ValueError:  # no id that the hub could have
        return f"there is no folder {source}"
    return None if cached else f"{source} is not in the hub's cache (hf download {source})"


def files_digest(source: str) -> str | None:
    """The first 8 digits of a SHA-256 over the hashes of a folder's weight files; None: it has none."""
    folder = Path(source)
    files = sorted(folder.glob("*.safetensors")) if folder.exists() else []
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()[:8] if files else None


def weights_digest(source: str, config: Any) -> str:
    """The digest of a model's weight files, or of its commit where it comes from the hub."""
    commit = str(getattr(config, "_commit_hash", None) or source)
    return files_digest(source) or hashlib.sha256(commit.encode()).hexdigest()[:8]
