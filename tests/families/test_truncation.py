"""Which texts a model does not read to their end, told by its tokenizer, and as its conditioning has it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from duo_unlearn.families.truncation import cut_texts, text_length

from ..slow import slow_but
from .test_contract import MAKERS, NAMES, load


@pytest.mark.parametrize("name", slow_but(NAMES, ("mini", "flux")))
def test_a_text_is_cut_where_its_last_word_changes_nothing(name: str, tmp_path: Path) -> None:
    model = load(MAKERS[name](tmp_path / name))
    length = text_length(model)
    for words, is_cut in ((length // 8, False), (length + 20, True)):
        texts = [f"{'red ' * words}{last}" for last in ("sword", "flower")]
        sword, flower = (model.condition([text]).text for text in texts)
        assert torch.equal(sword, flower) == is_cut
        assert cut_texts(model, texts) == (set(texts) if is_cut else set())
