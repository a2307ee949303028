"""Intervals against worked numbers."""

from __future__ import annotations

import pytest

from duo_unlearn.interval import mean_interval, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # p = 0.1, z² = 3.8415: (0.1 + 0.19207 ∓ 1.95996 √(0.009 + 0.0096036)) / 1.38415
        (1, 10, 0.017876, 0.404150),
        # Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20, 1/29.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_numbers(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=6e-5)


def test_wilson_of_all_is_the_mirror_of_none() -> None:
    none, every = wilson(0, 300), wilson(300, 300)
    assert none.low == 0.0
    assert every.high == 1.0
    assert every.low == pytest.approx(1 - none.high, abs=1e-12)
    assert none.high == pytest.approx(3.841459 / 303.841459, abs=1e-6)  # z² / (n + z²)


def test_wilson_widens_with_confidence_and_narrows_with_n() -> None:
    def width(n: int, confidence: float) -> float:
        low, high = wilson(n // 2, n, confidence)
        return high - low

    assert width(100, 0.99) > width(100, 0.95) > width(400, 0.95)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_shares_that_are_none(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=str(n)):
        wilson(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_is_between_0_and_1(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 2, confidence)


def test_mean_interval_by_hand() -> None:
    # Mean 5, squared deviations 9+1+1+1+0+0+4+16 = 32, s² = 32/7, half-width 1.959964 √(32/56).
    found = mean_interval([2, 4, 4, 4, 5, 5, 7, 9])
    assert found == pytest.approx((5.0, 5 - 1.481593, 5 + 1.481593), abs=1e-5)


def test_equal_values_have_no_width() -> None:
    assert mean_interval([3.0, 3.0]) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_a_mean_needs_two_values(values: list[float]) -> None:
    with pytest.raises(ValueError, match="two values"):
        mean_interval(values)
