"""The pages of the families: what each of them can have is what the code says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.guards.registry import GUARDS

PAGES = Path(__file__).parents[2] / "docs" / "families"
PAGE_OF = {"flux2-klein": "flux2"}


def but(things: str, names: Sequence[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in names)
    return f"all {things} but {listed}" if names else f"all {things}"


def sentence(name: str) -> str:
    """What a page says of a family; put it there when it changes."""
    family = FAMILIES.get(name)
    erasers = [one for one in ERASERS.names() if ERASERS.get(one).why_not(family) is not None]
    guards = [one for one in GUARDS.names() if GUARDS.get(one).why_not(family) is not None]
    tokens = [] if family.reads_clip_alone else [a for a in ATTACKS.names() if "tokens" in ATTACKS.get(a).needs]
    return f"{but('erasers', erasers).capitalize()}; {but('guards', guards)}; {but('attacks', tokens)}."


@pytest.mark.parametrize("name", [name for name in FAMILIES.names() if name != "mini"])
def test_a_page_says_what_its_family_can_have(name: str) -> None:
    page = (PAGES / f"{PAGE_OF.get(name, name)}.md").read_text(encoding="utf-8")
    assert sentence(name) in " ".join(page.split()), f"docs/families says of {name}: {sentence(name)}"
