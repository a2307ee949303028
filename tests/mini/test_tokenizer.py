"""The tokenizer is a real CLIPTokenizer: unseen words split, and it survives saving."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from duo_unlearn.mini.fit.batches import training_scenes
from duo_unlearn.mini.fit.fit import TOKENIZER
from duo_unlearn.mini.model.parts import CONTEXT, build_tokenizer, token_ids
from duo_unlearn.mini.world.captions import Wording, caption, forms_of, wordings_of
from duo_unlearn.mini.world.scenes import ATTRIBUTES, ITEMS
from duo_unlearn.mini.world.words import lexicon

from .described import described


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


@pytest.fixture(scope="module")
def shipped_tokenizer(shipped: Path) -> Any:
    """The tokenizer of the model in the package."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(shipped / "tokenizer")


def lengths(tokenizer: Any, texts: list[str]) -> list[int]:
    return [len(ids) for ids in tokenizer(texts, truncation=False).input_ids]


def test_the_shipped_tokenizer_knows_the_words_of_its_world(shipped_tokenizer: Any) -> None:
    german_and_spanish = {"schwert", "klinge", "luftballon", "espada", "globo", "ritter", "caballero"}
    names = {label for name in ("item", "subject", "colour", "place") for label in ATTRIBUTES[name]}
    for word in (names - {"none"}) | german_and_spanish:
        assert shipped_tokenizer.tokenize(word) == [f"{word}</w>"]


def test_the_shipped_vocabulary_has_at_most_as_many_tokens_as_its_recipe_says(shipped_tokenizer: Any) -> None:
    assert 900 < len(shipped_tokenizer) <= TOKENIZER["vocabulary"] == 1200
    assert shipped_tokenizer.model_max_length == CONTEXT


@pytest.mark.parametrize("item", ITEMS[1:])
def test_a_misspelt_word_is_cut_into_other_pieces_than_any_right_one(shipped_tokenizer: Any, item: str) -> None:
    words = lexicon()["english"]["items"][item]
    right = [shipped_tokenizer.tokenize(word) for word in (*words["direct"], *words["synonym"])]
    for misspelt in words["misspelt"]:
        pieces = shipped_tokenizer.tokenize(misspelt)
        assert pieces not in right
        # Two of them are German words, which the tokenizer knows.
        assert len(pieces) > len(misspelt.split()) or misspelt in ("ballon", "paddel"), pieces


def test_no_caption_is_cut_by_the_shipped_tokenizer(shipped_tokenizer: Any) -> None:
    texts = list({found.text for _, found in described(4000)})
    found = lengths(shipped_tokenizer, texts)
    assert max(found) <= CONTEXT, texts[found.index(max(found))]


@pytest.mark.parametrize("wording", ["direct", "synonym"])
def test_long_captions_have_at_least_28_tokens_and_are_not_cut(shipped_tokenizer: Any, wording: Wording) -> None:
    rng = random.Random(wording)
    scenes = training_scenes(rng, 800, "figure")
    texts = [
        caption(scene, rng, wording=wording, form="long", keep_all=True).text
        for scene in scenes
        if "long" in forms_of(scene, wording) and wording in wordings_of(scene.item)
    ]
    found = lengths(shipped_tokenizer, texts)
    assert len(texts) > 400
    assert min(found) >= 28, texts[found.index(min(found))]
    assert max(found) <= CONTEXT, texts[found.index(max(found))]
