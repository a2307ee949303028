"""Which text rows closed forms edit, and which row of the safe prompt each of them goes to."""

from __future__ import annotations

import pytest
import torch

from duo_unlearn.erasers.text_rows import row_pairs, text_rows
from duo_unlearn.erasers.words import Contrast
from duo_unlearn.families.load import load_model

# start a knight holding a SWORD in snow end, against: start a knight with EMPTY HANDS in snow end; four rows of padding
SWORD, HANDS = [0, 1, 2, 3, 1, 9, 5, 6, 7], [0, 1, 2, 4, 8, 10, 5, 6, 7]
FLOWER = [0, 1, 2, 3, 1, 11, 5, 6, 7]
LENGTH = 13


def test_rows_from_the_concept_on_go_to_the_same_rows() -> None:
    assert row_pairs(SWORD, HANDS, LENGTH, "last") == [(5, 5)]
    assert row_pairs(SWORD, HANDS, LENGTH, "all") == [(i, i) for i in range(5, 13)]


def test_differing_rows_begin_where_the_captions_part() -> None:
    assert row_pairs(SWORD, FLOWER, LENGTH, "differing", {tuple(FLOWER[:i]) for i in range(10)}) == [
        (i, i) for i in range(5, 13)
    ]
    shared = {tuple(HANDS[:i]) for i in range(10)}
    assert row_pairs(SWORD, HANDS, LENGTH, "differing", shared) == [(i, i) for i in range(3, 13)]


def test_a_row_that_a_safe_prompt_has_as_well_is_not_edited() -> None:
    # "a knight holding a" begins the flower's caption too: editing it would change that one.
    shared = {tuple(ids[:i]) for ids in (HANDS, FLOWER) for i in range(10)}
    assert row_pairs(SWORD, HANDS, LENGTH, "differing", shared) == [(i, i) for i in range(5, 13)]


def test_captions_of_different_length_are_aligned_from_the_concept_on() -> None:
    longer = [0, 1, 2, 3, 1, 12, 9, 5, 6, 7]
    expected = [(6 + i, 5 + i) for i in range(7)]
    assert row_pairs(longer, HANDS, LENGTH, "all") == expected
    assert row_pairs(longer, HANDS, LENGTH, "differing") == expected


@pytest.mark.parametrize("keep", [True, False])
def test_the_rows_are_the_encoders(keep: bool) -> None:
    model = load_model("mini", torch.device("cpu"))
    texts = [Contrast(f"a red {who} holding a sword", f"a red {who} holding a flower") for who in ("king", "robot")]
    rows = text_rows(model, texts, "differing", keep=keep)
    unsafe, safe = (model.condition(list(side)).text for side in zip(*texts, strict=True))
    first = 1 + len(["a", "red", "king", "holding", "a"])
    width = unsafe.shape[-1]
    torch.testing.assert_close(rows.erase, unsafe[:, first:].reshape(-1, width))
    torch.testing.assert_close(rows.guide, safe[:, first:].reshape(-1, width))
    assert rows.keep.shape == ((2 * safe.shape[1] if keep else 0), width)
    # Before that word the two captions have the same rows.
    torch.testing.assert_close(unsafe[:, :first], safe[:, :first])
