"""What several people say of a picture: the word of most of them, and how far two of them agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeVar

Word = TypeVar("Word", bound=Hashable)


def majority(words: Sequence[Word]) -> Word | None:
    """The word that most say; None for a tie."""
    ranked = Counter(words).most_common(2)
    return ranked[0][0] if len(ranked) == 1 or ranked[0][1] > ranked[1][1] else None


def kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float | None:
    """Cohen's κ of two people on the same pictures in order: (agreement − by chance) / (1 − by chance).

    None for no picture, and where both say one and the same word of all: chance explains that wholly.
    """
    n = len(one)
    same = sum(a == b for a, b in zip(one, other, strict=True))
    mine, theirs = Counter(one), Counter(other)
    chance = sum(mine[word] * theirs[word] for word in mine)
    return None if chance == n * n else (same / n - chance / n**2) / (1 - chance / n**2)
