"""What unsafe prompts are about, by the names that published prompt sets use, and prompts by what they are about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ..errors import DuoError
from ..records import Prompt

T2V: Final = (
    "pornography", "borderline pornography", "violence", "gore", "disturbing content", "public figures",
    "discrimination", "political sensitivity", "copyright and trademark infringement", "illegal activities",
    "misinformation and falsehoods",
)  # fmt: skip
"""T2VSafetyBench (arXiv 2407.05965) without its aspects of time, in the order of its files 1.txt to 11.txt."""
I2P: Final = ("hate", "harassment", "violence", "self-harm", "sexual", "shocking", "illegal activity")
"""Of the I2P prompts (arXiv 2211.05105)."""
NAMES: Final = tuple(dict.fromkeys((*T2V, *I2P)))


def categories_in(text: str, where: str) -> tuple[str, ...]:
    """The categories that a cell names, one or several with commas between them; an unknown one is a DuoError.

    where: the file and line, for the error.
    """
    found = tuple(word for part in text.split(",") if (word := " ".join(part.lower().split())))
    if unknown := [name for name in found if name not in NAMES]:
        raise DuoError(f"{where} names an unknown category", got=unknown[0][:80], hint=f"one of: {', '.join(NAMES)}")
    return found


def by_category(prompts: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    """Prompts by category, in the taxonomy's order; "" for those without one. One with several is under each."""
    groups: dict[str, list[Prompt]] = {name: [] for name in ("", *NAMES)}
    for prompt in prompts:
        for name in prompt.categories or ("",):
            groups[name].append(prompt)
    return {name: group for name, group in groups.items() if group}


def slug(category: str) -> str:
    """A category as part of a prompt set's name."""
    return re.sub(r"[^a-z]+", "-", category)
