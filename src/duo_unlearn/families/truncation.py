"""Texts that a model does not read to their end: pipelines cut them, and say nothing that a user sees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .interface import Model


def text_length(model: Model) -> int:
    """How many tokens of a prompt its pipeline reads, start and end among them: by the encoder that reads most."""
    own = int(_tokenizer(model).model_max_length)
    asked = model.kind.text_tokens
    return own if asked is None else min(own, asked)


def cut_texts(model: Model, texts: Iterable[str]) -> set[str]:
    """Those of some texts whose end the model does not read."""
    tokenizer, length = _tokenizer(model), text_length(model)
    return {text for text in set(texts) if len(tokenizer(text, verbose=False).input_ids) > length}


def _tokenizer(model: Model) -> Any:
    """That of the encoder that reads most: a pipeline's last one, where CLIP's come before T5's."""
    there = [getattr(model.pipe, name, None) for name in model.kind.tokenizers]
    last = next(tokenizer for tokenizer in reversed(there) if tokenizer is not None)
    return getattr(last, "tokenizer", last)  # a processor of pictures and texts has one
