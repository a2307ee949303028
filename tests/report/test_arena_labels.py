"""Labels of the arena's figure: apart from one another, each nearest to its own mark or led to it, DUO's its own."""

from __future__ import annotations

import itertools
import random

import numpy as np

from duo_unlearn.report.arena_labels import Place, Point, grouped, places

BOUNDS = np.array([[0.0, 0.0, 200.0, 160.0]])
SIZE = Point(14, 8)


def crowd(count: int, spread: float) -> list[Point]:
    rng = random.Random(count)
    return [Point(150 + spread * rng.random(), 120 + spread * rng.random()) for _ in range(count)]


def apart(one: Place, other: Place) -> bool:
    across, up = (abs(a - b) for a, b in zip(one.centre, other.centre, strict=True))
    return across >= SIZE.x or up >= SIZE.y


def test_marks_that_lie_close_share_a_label_but_for_those_alone() -> None:
    points = [Point(10, 10), Point(12, 11), Point(13, 12), Point(80, 10)]
    assert grouped(points, [False] * 4) == [[0, 1, 2], [3]]
    assert grouped(points, [False, True, False, False]) == [[1], [0, 2], [3]]


def test_no_label_lies_on_another_or_outside_the_panel() -> None:
    for count in (2, 7, 20):
        points = crowd(count, 40)
        groups = grouped(points, [i == 0 for i in range(count)])
        assert sorted(i for group in groups for i in group) == list(range(count))
        found = places(groups, [SIZE] * len(groups), points, BOUNDS)
        assert all(apart(one, other) for one, other in itertools.combinations(found, 2))
        for place in found:
            assert 0 <= place.centre.x - SIZE.x / 2 <= place.centre.x + SIZE.x / 2 <= 200
            assert 0 <= place.centre.y - SIZE.y / 2 <= place.centre.y + SIZE.y / 2 <= 160


def test_a_label_is_nearest_to_its_mark_or_led_to_it() -> None:
    for points in ([Point(100, 100), Point(100, 115), Point(85, 100), Point(115, 100)], crowd(17, 30)):
        found = places([[i] for i in range(len(points))], [SIZE] * len(points), points, BOUNDS)
        for i, place in enumerate(found):
            away = [float(np.hypot(*(np.array(place.centre) - point))) for point in points]
            assert min(away) == away[i] or place.is_led
    assert not places([[0]], [SIZE], points[:1], BOUNDS)[0].is_led
