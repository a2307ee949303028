"""Prompts as token ids whose input embeddings may be put in place: what attacks on the text encoder search over.

For models with one CLIP text encoder. The model itself is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from .base import Conditioning, Model

PLACEHOLDER: Final = "<inverted>"
"""Stands for the free vector in a prompt, as a word of its own."""


def one_encoder(model: Model) -> bool:
    """Whether the model has the single CLIP text encoder that this module reaches."""
    return model.family in ("mini", "sd1", "sd2")


def vocabulary(model: Model) -> Tensor:
    """The input embedding of every token, (token, width)."""
    weight: Tensor = model.pipe.text_encoder.get_input_embeddings().weight.detach()
    return weight


def word_ids(model: Model, text: str) -> list[int]:
    """The tokens of a text, without start and end."""
    found: list[int] = model.pipe.tokenizer(text, add_special_tokens=False).input_ids if text.strip() else []
    return found


def initial_vector(model: Model, word: str) -> Tensor:
    """The input embedding of a word (the mean over its pieces), (width,), float32."""
    return vocabulary(model)[word_ids(model, word)].mean(dim=0).float().clone()


def sequence(model: Model, ids: Sequence[int]) -> list[int]:
    """Token ids with start, end and padding, cut to the encoder's length."""
    tokenizer = model.pipe.tokenizer
    length = tokenizer.model_max_length
    whole = [tokenizer.bos_token_id, *ids[: length - 2], tokenizer.eos_token_id]
    return [*whole, *[tokenizer.pad_token_id] * (length - len(whole))]


def text_of(model: Model, ids: Sequence[int]) -> str:
    """Token ids as people read them; encoding this text again may give other ids."""
    return str(model.pipe.tokenizer.decode(list(ids))).strip()


def encode_ids(model: Model, ids: Tensor, rows: Tensor | None = None, first: int = 1) -> Conditioning:
    """Whole sequences of token ids, (prompt, token), → conditioning. Differentiable in `rows`.

    rows: input embeddings, (prompt, n, width), in place of those of tokens first … first + n − 1.
    """
    encoder = model.pipe.text_encoder

    def put(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        if rows is None:
            return output
        return torch.cat([output[:, :first], rows.to(output), output[:, first + rows.shape[1] :]], dim=1)

    hook = encoder.get_input_embeddings().register_forward_hook(put)
    try:
        embedded: Tensor = encoder(ids.to(model.device)).last_hidden_state
    finally:
        hook.remove()
    return Conditioning(embedded)


def encode_with_vector(model: Model, prompts: Sequence[str], vector: Tensor) -> Conditioning:
    """Prompts in which PLACEHOLDER stands for `vector` (width,) → conditioning.

    Differentiable in `vector`.
    """
    tokenizer, encoder = model.pipe.tokenizer, model.pipe.text_encoder
    length = tokenizer.model_max_length
    rows, places = [], []
    for prompt in prompts:
        before, found, after = prompt.partition(PLACEHOLDER)
        ids = word_ids(model, before)
        places.append(1 + len(ids) if found else -1)
        ids += [tokenizer.eos_token_id] if found else []
        rows.append(sequence(model, [*ids, *word_ids(model, after)]))
    here = torch.tensor(places, device=model.device).view(-1, 1) == torch.arange(length, device=model.device)

    def put(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        return torch.where(here.unsqueeze(-1), vector.to(output), output)

    hook = encoder.get_input_embeddings().register_forward_hook(put)
    try:
        embedded: Tensor = encoder(torch.tensor(rows, device=model.device)).last_hidden_state
    finally:
        hook.remove()
    return Conditioning(embedded)
