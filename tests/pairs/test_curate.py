from __future__ import annotations

import pytest

from duo_unlearn.errors import DuoError
from duo_unlearn.pairs.curate import Attributes, pair_fault, unsafe_fault
from duo_unlearn.records import Verdict

SEEN, CLEAN = Verdict(True, 0.9), Verdict(False, 0.1)
BEFORE = {"item": "sword", "subject": "knight", "colour": "red", "place": "snow"}
KEPT = ["subject", "colour", "place"]


def fault(safe: dict[str, str]) -> str | None:
    return pair_fault(SEEN, CLEAN, Attributes(BEFORE, BEFORE | safe), {"item": "wand"}, KEPT)


def test_the_unsafe_image_must_show_the_concept() -> None:
    assert unsafe_fault(SEEN) is None
    assert unsafe_fault(CLEAN) == "no concept in the unsafe image"
    assert pair_fault(CLEAN, CLEAN) == "no concept in the unsafe image"


def test_the_safe_image_must_not() -> None:
    assert pair_fault(SEEN, SEEN) == "concept still in the safe image"
    assert pair_fault(SEEN, CLEAN) is None


def test_the_safe_image_shows_what_its_prompt_says() -> None:
    assert fault({"item": "wand"}) is None
    assert fault({"item": "book"}) == "safe image shows item=book, not item=wand"


@pytest.mark.parametrize(("name", "new"), [("subject", "king"), ("colour", "blue"), ("place", "beach")])
def test_kept_attributes_must_stay(name: str, new: str) -> None:
    assert fault({"item": "wand", name: new}) == f"{name} changed from {BEFORE[name]} to {new}"


def test_without_a_reader_only_the_concept_is_gated() -> None:
    assert pair_fault(SEEN, CLEAN, None, {"item": "wand"}, KEPT) is None


def test_an_attribute_that_is_not_read_is_an_error() -> None:
    with pytest.raises(DuoError, match="subject"):
        pair_fault(SEEN, CLEAN, Attributes({"item": "sword"}, {"item": "wand"}), {"item": "wand"}, ["subject"])
