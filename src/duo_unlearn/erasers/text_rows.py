"""The rows of text embeddings that a closed form edits: which row of an unsafe prompt goes to which of its safe one.

A text encoder is causal, so a row holds the tokens up to its own, and the rows after the concept's word hold it too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from ..families.interface import Model
    from .words import Contrast

RowRule = Literal["last", "all", "differing"]
"""last: the concept's last token. all: from it to the end of the padding. differing: see `row_pairs`."""
BATCH = 64


class TextRows(NamedTuple):
    """Rows to erase, their guides, and rows to keep, each (row, width). There may be none to keep."""

    erase: Tensor
    guide: Tensor
    keep: Tensor


def concept_rows(ids: Sequence[int], guide: Sequence[int]) -> tuple[int, int]:
    """Where the concept ends in a prompt's tokens, and its guide's counterpart in theirs: the last ones that differ.

    ids, guide: tokens without padding.
    """
    same = 0
    while same < min(len(ids), len(guide)) and ids[-1 - same] == guide[-1 - same]:
        same += 1
    return max(len(ids) - same - 1, 0), max(len(guide) - same - 1, 0)


def row_pairs(
    ids: Sequence[int], guide: Sequence[int], length: int, rule: RowRule, shared: Collection[tuple[int, ...]] = ()
) -> list[tuple[int, int]]:
    """The rows of a prompt to edit, each with the row of its guide, of `length` rows.

    differing: every row that differs goes to the same row of the guide, but those which some safe prompt has as well.
    That needs the same caption with something else in it: two of different length are edited as by "all".
    shared: how safe prompts begin, as tokens.
    """
    at, other = concept_rows(ids, guide)
    if rule == "last":
        return [(at, other)]
    tail = [(at + i, other + i) for i in range(length - max(at, other))]
    if rule == "all" or len(ids) != len(guide):
        return tail
    return [(i, i) for i in range(at) if tuple(ids[: i + 1]) not in shared] + tail


def text_rows(model: Model, texts: Sequence[Contrast], rule: RowRule, *, keep: bool) -> TextRows:
    """The rows of some prompts, on the CPU, float32. keep: whether all rows of the safe prompts are kept."""
    import torch

    safe = sorted({text.safe for text in texts})
    rows = _encoded(model, sorted({*safe, *(text.unsafe for text in texts)}))
    ids = dict(zip(rows, model.pipe.tokenizer(list(rows), truncation=True).input_ids, strict=True))
    shared = {tuple(ids[text][:end]) for text in safe for end in range(1, len(ids[text]) + 1)}
    erase, guide = [], []
    for unsafe, counterpart in texts:
        c, g = rows[unsafe], rows[counterpart]
        pairs = row_pairs(ids[unsafe], ids[counterpart], len(c), rule, shared)
        erase.append(c[[i for i, _ in pairs]])
        guide.append(g[[i for _, i in pairs]])
    erased = torch.cat(erase)
    return TextRows(erased, torch.cat(guide), torch.cat([rows[text] for text in safe]) if keep else erased[:0])


def _encoded(model: Model, texts: Sequence[str]) -> dict[str, Tensor]:
    """Text → its rows, (token, width)."""
    found: dict[str, Tensor] = {}
    for first in range(0, len(texts), BATCH):
        batch = texts[first : first + BATCH]
        found |= zip(batch, model.condition(batch).text.float().cpu(), strict=True)
    return found
