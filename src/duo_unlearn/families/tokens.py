"""Prompts as token ids whose input embeddings may be put in place: what attacks on the text encoder search over.

For models that read CLIP text encoders alone. SDXL's two share a vocabulary, so there a token's embedding is theirs
side by side, and one search reaches both. The model itself is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from .interface import Conditioning, Inverted, Model, Tokens

PLACEHOLDER: Final = "<inverted>"
"""Stands for the free vector in a prompt, as a word of its own."""


def vocabulary(model: Model) -> Tensor:
    """The input embedding of every token, (token, width); of two encoders: side by side, a new tensor."""
    weights = [encoder.get_input_embeddings().weight.detach() for _, encoder in _encoders(model)]
    return weights[0] if len(weights) == 1 else torch.cat(weights, dim=1)


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


def plain_tokens(model: Model) -> Tensor:
    """Token ids that a search may write: all but start, end and padding, (token,)."""
    tokenizer = model.pipe.tokenizer
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return torch.tensor(
        [i for i in range(model.pipe.text_encoder.get_input_embeddings().num_embeddings) if i not in special]
    )


def nearest_tokens(vectors: Tensor, plain: Tensor, directions: Tensor) -> Tensor:
    """The token nearest to each vector by cosine (Wen et al. 2023), (…,), of vectors (…, width).

    plain: the tokens that there are to choose from; directions: their embeddings at length 1, (token, width).
    """
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    return plain[(unit @ directions.T).argmax(dim=-1)]


def tokens_of(model: Model, words: str | Tokens | Inverted) -> Tokens:
    """The words of one prompt as token ids; a free vector is a row in the place of its token."""
    if isinstance(words, Tokens):
        return words
    text = words if isinstance(words, str) else words.texts[0]
    before, there, after = text.partition(PLACEHOLDER)
    if isinstance(words, str) or not there:
        return Tokens(torch.tensor([sequence(model, word_ids(model, text))]))
    ids = word_ids(model, before)
    whole = sequence(model, [*ids, model.pipe.tokenizer.bos_token_id, *word_ids(model, after)])
    return Tokens(torch.tensor([whole]), words.vector.view(1, 1, -1), 1 + len(ids))


def ends(model: Model, ids: Tensor) -> Tensor:
    """Where each prompt's first end token is, (prompt,), of ids (prompt, token)."""
    places: Tensor = (ids == model.pipe.tokenizer.eos_token_id).long().argmax(dim=1)
    return places


def encode_tokens(model: Model, tokens: Tokens) -> Conditioning:
    """The conditioning of token ids, for `Model.condition`. Differentiable in their rows."""
    ids = tokens.ids.to(model.device)
    if tokens.rows is None:
        return _encode(model, ids, None, None)
    first, last = tokens.first, tokens.first + tokens.rows.shape[1]
    place = torch.arange(ids.shape[1], device=ids.device)
    here = (place >= first) & (place < last) & ~_padding(model, ids)
    return _encode(model, ids, torch.nn.functional.pad(tokens.rows, (0, 0, first, ids.shape[1] - last)), here)


def encode_inverted(model: Model, inverted: Inverted) -> Conditioning:
    """The conditioning of texts in which PLACEHOLDER stands for a vector, for `Model.condition`.

    Differentiable in the vector.
    """
    tokenizer = model.pipe.tokenizer
    rows, places = [], []
    for text in inverted.texts:
        before, there, after = text.partition(PLACEHOLDER)
        ids = word_ids(model, before)
        places.append(1 + len(ids) if there else -1)
        # Any token will do there but the one that ends a prompt, at which the pooled output is taken.
        ids += [tokenizer.bos_token_id] if there else []
        rows.append(sequence(model, [*ids, *word_ids(model, after)]))
    whole = torch.tensor(rows, device=model.device)
    here = torch.tensor(places, device=model.device).view(-1, 1) == torch.arange(whole.shape[1], device=model.device)
    return _encode(model, whole, inverted.vector.to(model.device).view(1, 1, -1), here)


def _encoders(model: Model) -> list[tuple[Any, Any]]:
    """Each text encoder behind its tokenizer."""
    return [(getattr(model.pipe, tokens), getattr(model.pipe, text)) for tokens, text in model.kind.token_encoders]


def _padding(model: Model, ids: Tensor) -> Tensor:
    """Which tokens come after the first one that ends the prompt, (prompt, token)."""
    ends: Tensor = (ids == model.pipe.tokenizer.eos_token_id).long()
    return ends.cumsum(dim=1) > ends


def _encode(model: Model, ids: Tensor, given: Tensor | None, here: Tensor | None) -> Conditioning:
    """Token ids → conditioning, with embeddings `given`, (prompt, token, width), where `here`, (prompt, token)."""
    encoders, padding, outputs, used = _encoders(model), _padding(model, ids), [], 0
    for tokenizer, encoder in encoders:
        layer = encoder.get_input_embeddings()
        own = slice(used, used := used + layer.embedding_dim)

        def put(_module: Any, _inputs: Any, output: Tensor, own: slice = own) -> Tensor:
            if given is None or here is None:
                return output
            return torch.where(here.unsqueeze(-1), given[..., own].to(output), output)

        hook = layer.register_forward_hook(put)
        try:
            # Two tokenizers of one vocabulary still pad with different tokens.
            padded = ids.masked_fill(padding, tokenizer.pad_token_id)
            outputs.append(encoder(padded, output_hidden_states=len(encoders) > 1))
        finally:
            hook.remove()
    if len(outputs) == 1:
        return Conditioning(outputs[0].last_hidden_state)
    # As SDXL's own pipeline reads them: next to last states, and the second encoder's projected one.
    return Conditioning(torch.cat([output.hidden_states[-2] for output in outputs], dim=-1), outputs[-1].text_embeds)
