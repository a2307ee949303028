"""A prompt with one token that is a free vector: what textual inversion optimises. The model itself is not changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from .base import Conditioning, Model

PLACEHOLDER: Final = "<inverted>"
"""Stands for the free vector in a prompt, as a word of its own."""


def initial_vector(model: Model, word: str) -> Tensor:
    """The input embedding of a word (the mean over its pieces), (width,), float32."""
    ids = model.pipe.tokenizer(word, add_special_tokens=False).input_ids
    weight: Tensor = model.pipe.text_encoder.get_input_embeddings().weight
    return weight[ids].mean(dim=0).detach().float().clone()


def encode_with_vector(model: Model, prompts: Sequence[str], vector: Tensor) -> Conditioning:
    """Prompts in which PLACEHOLDER stands for `vector` (width,) → conditioning.

    Differentiable in `vector`.
    """
    tokenizer, encoder = model.pipe.tokenizer, model.pipe.text_encoder
    length = tokenizer.model_max_length
    rows, places = [], []
    for prompt in prompts:
        ids: list[int] = [tokenizer.bos_token_id]
        before, found, after = prompt.partition(PLACEHOLDER)
        ids += tokenizer(before, add_special_tokens=False).input_ids if before.strip() else []
        places.append(len(ids) if found else -1)
        ids += [tokenizer.eos_token_id] if found else []
        ids += tokenizer(after, add_special_tokens=False).input_ids if after.strip() else []
        ids = [*ids[: length - 1], tokenizer.eos_token_id]
        rows.append([*ids, *[tokenizer.pad_token_id] * (length - len(ids))])
    here = torch.tensor(places, device=model.device).view(-1, 1) == torch.arange(length, device=model.device)

    def put(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        return torch.where(here.unsqueeze(-1), vector.to(output), output)

    hook = encoder.get_input_embeddings().register_forward_hook(put)
    try:
        embedded: Tensor = encoder(torch.tensor(rows, device=model.device)).last_hidden_state
    finally:
        hook.remove()
    return Conditioning(embedded)
