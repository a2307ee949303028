"""Cases of a parametrized test that only the slow tests run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow(values: Iterable[Any]) -> list[Any]:
    """The values as slow cases."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def slow_but(values: Iterable[Any], fast: Iterable[Any]) -> list[Any]:
    """The values in their order: those among `fast` as they are, the others as slow cases."""
    kept = list(fast)
    return [value if value in kept else pytest.param(value, marks=pytest.mark.slow) for value in values]
