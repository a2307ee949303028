"""The tokenizer is a real CLIPTokenizer: unseen words split, and it survives saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from duo_unlearn.mini.model.parts import CONTEXT, build_tokenizer, token_ids


@pytest.mark.parametrize("text", ["xylophone", "quizzical jackdaws", "a zebra 42", "hello, world!", "sw0rd"])
def test_unseen_words_tokenize_without_unknowns(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    # The unknown token is the end token, as in CLIP: inside a text it would be a lost letter.
    assert tokenizer.unk_token_id not in ids[1:-1]
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded.replace(" ", "") == text.replace(" ", "")


def test_frequent_words_are_one_token_and_pieces_are_there_to_attack_with(tokenizer: Any) -> None:
    assert tokenizer.tokenize("a knight holding a sword") == [
        "a</w>",
        "knight</w>",
        "holding</w>",
        "a</w>",
        "sword</w>",
    ]
    assert tokenizer.tokenize("A KNIGHT") == ["a</w>", "knight</w>"]
    assert any(not token.endswith("</w>") for token in tokenizer.tokenize("swordfish"))


def test_the_vocabulary_stays_within_what_was_asked(tokenizer: Any) -> None:
    assert 200 < len(tokenizer) <= 450
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_ids_are_padded_and_cut_to_the_context(tokenizer: Any) -> None:
    ids = token_ids(tokenizer, ["a red knight", "a sword and " * 30, ""])
    assert ids.shape == (3, CONTEXT)
    assert ids.dtype == torch.int64
    assert ids[1, -1] == tokenizer.eos_token_id  # a text that is cut still ends
    assert ids[2].tolist() == [tokenizer.bos_token_id] + [tokenizer.eos_token_id] * (CONTEXT - 1)


def test_saving_and_loading_keeps_every_id(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, CLIPTokenizer

    tokenizer.save_pretrained(tmp_path)
    texts = ["an orange king with a sharp steel weapon", "xylophone, Z!"]
    for loaded in (CLIPTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert loaded.model_max_length == CONTEXT
        assert token_ids(loaded, texts).tolist() == token_ids(tokenizer, texts).tolist()


def test_the_same_seed_builds_the_same_vocabulary(tokenizer: Any, tmp_path: Path) -> None:
    again = build_tokenizer(tmp_path, captions=400, vocabulary=450, seed=0)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_the_shipped_tokenizer_knows_the_words_of_its_world(shipped: Path) -> None:
    from transformers import CLIPTokenizer

    from duo_unlearn.mini.world.scenes import ATTRIBUTES

    tokenizer = CLIPTokenizer.from_pretrained(shipped / "tokenizer")
    for labels in ATTRIBUTES.values():
        for label in set(labels) - {"none"}:
            assert tokenizer.tokenize(label) == [f"{label}</w>"]
