"""A bank of captions: what attacks found on training prompts, in one file that says where each came from.

A row is what the text encoders are given, token ids and free vectors, and not what they gave: it is read again through
the encoders of the model that is trained. What an attack found behind the encoders is kept as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import DuoError
from ...families.interface import Conditioning, Inverted, Model, Words, joined
from ...families.interface import Tokens as Ids
from ...families.tokens import sequence, vocabulary
from ...runs.folder import Run
from ...storage.files import digest, read_tensors, sha256_of, write_bytes, write_tensors
from ..interface import EraserContext
from .settings import RobustSettings


class Caption(NamedTuple):
    """One caption of a bank. attack: what found it; text: as people read it; one of the three is what is read.

    ids: token ids, start to padding, (token,). vector: stands for the placeholder in the text, (width,). behind: what
    stands behind the encoders.
    """

    attack: str
    text: str
    ids: Tensor | None = None
    vector: Tensor | None = None
    behind: Conditioning | None = None


def write_bank(path: Path, captions: Sequence[Caption], provenance: Mapping[str, Any]) -> None:
    """Write a bank. provenance: of the system that was attacked, and how."""
    tensors: dict[str, Tensor] = {}
    for i, caption in enumerate(captions):
        parts = {"ids": caption.ids, "vector": caption.vector}
        parts |= {f"behind.{k}": v for k, v in (caption.behind._asdict() if caption.behind is not None else {}).items()}
        # A copy each: a file holds none that share memory.
        tensors |= {f"{i}.{name}": part.clone().contiguous() for name, part in parts.items() if part is not None}
    told = [{"attack": caption.attack, "text": caption.text} for caption in captions]
    write_tensors(path, tensors, {"captions": json.dumps(told), "provenance": json.dumps(dict(provenance))})


def read_bank(path: Path) -> tuple[list[Caption], dict[str, Any]]:
    """The captions of a bank, and its provenance. Another file is a DuoError."""
    if not path.is_file():
        raise DuoError("there is no such bank of captions", got=str(path), hint="duo bank RUN -o bank.safetensors")
    tensors, metadata = read_tensors(path)
    try:
        told, provenance = json.loads(metadata["captions"]), json.loads(metadata["provenance"])
        captions = [_caption(one, tensors, str(i)) for i, one in enumerate(told)]
        provenance = dict(provenance)
    except (KeyError, ValueError, TypeError) as error:
        raise DuoError(f"{path} is no bank of captions", got=str(error)[:100], hint="duo bank writes one") from error
    if not captions:
        raise DuoError(f"the bank {path} holds no caption", hint="duo bank RUN -o bank.safetensors")
    return captions, provenance


def _caption(told: Mapping[str, str], tensors: Mapping[str, Tensor], name: str) -> Caption:
    text = tensors.get(f"{name}.behind.text")
    behind = None if text is None else Conditioning(text, tensors.get(f"{name}.behind.pooled"))
    return Caption(told["attack"], told["text"], tensors.get(f"{name}.ids"), tensors.get(f"{name}.vector"), behind)


def distinct(captions: Sequence[Caption]) -> list[Caption]:
    """Captions in order, each once: a search that serves every prompt, or asks no edit, finds one caption often."""
    kept: list[Caption] = []
    for caption in captions:
        if not any(_same(caption, one) for one in kept):
            kept.append(caption)
    return kept


def _same(one: Caption, other: Caption) -> bool:
    if one[:2] != other[:2]:
        return False
    parts = zip(_tensors(one), _tensors(other), strict=True)
    return all((a is None and b is None) or (a is not None and b is not None and torch.equal(a, b)) for a, b in parts)


def _tensors(caption: Caption) -> list[Tensor | None]:
    return [caption.ids, caption.vector, *(caption.behind[:2] if caption.behind is not None else (None, None))]


class Bank(NamedTuple):
    """A bank as a run has it. sha256: of its file."""

    captions: list[Caption]
    provenance: dict[str, Any]
    sha256: str


def check_bank(run: Run, settings: RobustSettings) -> None:
    """Fail for a bank that is not there, in the run or at its path, and for a file that is none. Nothing is written."""
    if (path := settings.bank) is not None and (path.is_file() or not _own_copy(run, path).exists()):
        read_bank(path)


def _own_copy(run: Run, path: Path) -> Path:
    """Where a run keeps its copy of a bank."""
    return run.moments.with_name(f"bank-{digest(str(path))[:8]}.safetensors")


def kept_bank(run: Run, path: Path) -> Path:
    """The run's copy of a bank, so that the run can be repeated once the file is elsewhere.

    By the name that the settings have for it: another one that is not there is a DuoError.
    """
    kept = _own_copy(run, path)
    if path.is_file() or not kept.exists():
        read_bank(path)
        if not kept.exists() or sha256_of(kept) != sha256_of(path):
            write_bytes(kept, path.read_bytes())
    return kept


def bank_of(run: Run, settings: RobustSettings) -> Bank:
    """The bank of a training, which is kept in the run."""
    assert settings.bank is not None
    return _bank(kept_bank(run, settings.bank))


def _bank(path: Path) -> Bank:
    return Bank(*read_bank(path), sha256_of(path))


def bank_read(context: EraserContext) -> Bank:
    """The bank that a training reads: what earlier rounds left, or the file of its options."""
    return bank_of(context.run, context.options) if context.bank is None else _bank(context.bank)


def captions_read(context: EraserContext) -> Conditioning:
    """What the denoiser reads of the captions of a training's bank; told where they were found on another base.

    Token ids are words there too. What was found as vectors, or behind the encoders, may mean nothing on this one.
    """
    bank, base = bank_read(context), context.model.fingerprint()
    there = bank.provenance.get("base", base)
    if there != base and not context.quiet:
        told = f"the bank was filled on another base model ({there}; this one is {base}): what it holds may not fit"
        print(f"warning: {told}", file=sys.stderr, flush=True)
    return read_captions(context.model, bank.captions)


def bank_facts(context: EraserContext) -> dict[str, Any]:
    """Which bank a training reads, and where that came from; nothing without one."""
    if not context.options.captions.bank:
        return {}
    bank = bank_read(context)
    return {"bank": {**bank.provenance, "sha256": bank.sha256}}


def read_captions(model: Model, captions: Sequence[Caption]) -> Conditioning:
    """What the denoiser reads of captions, in order, float32, on the CPU. Those of another family are a DuoError."""
    with torch.no_grad():
        shape = model.condition([""]).text.shape[1:]
    for caption in captions:
        if (got := _misfit(model, caption, shape)) is not None:
            hint = "a bank that was filled on a model of this family"
            raise DuoError("the bank's captions do not fit the model", got=got, hint=hint)
    return joined([_read(model, caption).map(lambda x: x.detach().float().cpu()) for caption in captions])


def _misfit(model: Model, caption: Caption, shape: torch.Size) -> str | None:
    """What of a caption is not of the model's sizes, or None. shape: of a conditioning, (token, width)."""
    if caption.behind is not None:
        same = caption.behind.text.shape[1:] == shape
        return None if same else f"a conditioning of {tuple(caption.behind.text.shape[1:])}, not {tuple(shape)}"
    if caption.vector is None and caption.ids is None:
        return None
    if not model.kind.reads_clip_alone:
        return f"CLIP's tokens, and {model.kind.title} reads another text encoder too"
    words = vocabulary(model)
    if caption.vector is not None and caption.vector.shape != words.shape[1:]:
        return f"a vector of {tuple(caption.vector.shape)}, not {tuple(words.shape[1:])}"
    if caption.ids is not None:
        if len(caption.ids) != len(sequence(model, [])):
            return f"{len(caption.ids)} tokens, not {len(sequence(model, []))}"
        for token in (int(caption.ids.min()), int(caption.ids.max())):
            if not 0 <= token < len(words):
                return f"token {token} of {len(words)}"
    return None


def _read(model: Model, caption: Caption) -> Conditioning:
    if caption.behind is not None:
        return caption.behind
    words: Words = [caption.text]
    if caption.vector is not None:
        words = Inverted([caption.text], caption.vector)
    elif caption.ids is not None:
        words = Ids(caption.ids.view(1, -1))
    with torch.no_grad():
        return model.condition(words)
