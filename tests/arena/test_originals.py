"""Originals by image: others are sampled side by side, the same are waited for, and each is sampled once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from PIL import Image

from duo_unlearn.arena.originals import MOST, Originals
from duo_unlearn.families.interface import SampleRequest
from duo_unlearn.runs.folder import Run

WAIT = 30.0


def painted(request: SampleRequest) -> Image.Image:
    return Image.new("RGB", (4, 4), (request.seed, 0, 0))


def colours(images: Sequence[Image.Image]) -> list[object]:
    return [image.getpixel((0, 0)) for image in images]


class Sampler:
    """Notes what it is asked for; a sampler with gates says that it is at work, and goes on when it may."""

    def __init__(self, *, gated: bool = False) -> None:
        self.asked: list[list[int]] = []
        self.at_work, self.may_end = threading.Event(), threading.Event()
        if not gated:
            self.may_end.set()

    def __call__(self, requests: Sequence[SampleRequest]) -> list[Image.Image]:
        self.asked.append([request.seed for request in requests])
        self.at_work.set()
        assert self.may_end.wait(WAIT)
        return [painted(request) for request in requests]


def ask(run: Run, sampler: Callable[[Sequence[SampleRequest]], list[Image.Image]], *seeds: int) -> list[Image.Image]:
    return Originals(run, "state", sampler, 2)(["a figure"] * len(seeds), seeds)


def in_thread(run: Run, sampler: Sampler, *seeds: int) -> tuple[threading.Thread, list[object]]:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend(colours(ask(run, sampler, *seeds))))
    thread.start()
    return thread, found


def test_other_images_are_sampled_side_by_side(run: Run) -> None:
    slow, quick = Sampler(gated=True), Sampler()
    thread, found = in_thread(run, slow, 1, 2)
    assert slow.at_work.wait(WAIT)
    assert colours(ask(run, quick, 4, 3)) == [(4, 0, 0), (3, 0, 0)]  # while the other still samples
    slow.may_end.set()
    thread.join(WAIT)
    assert found == [(1, 0, 0), (2, 0, 0)]


def test_the_same_images_are_waited_for_and_only_the_others_are_sampled(run: Run) -> None:
    slow, second = Sampler(gated=True), Sampler(gated=True)
    first_thread, _ = in_thread(run, slow, 1, 2)
    assert slow.at_work.wait(WAIT)
    second_thread, found = in_thread(run, second, 2, 3, 1)
    assert second.at_work.wait(WAIT)
    second.may_end.set()
    second_thread.join(0.2)
    assert second_thread.is_alive()  # for those that the first has
    slow.may_end.set()
    second_thread.join(WAIT)
    first_thread.join(WAIT)
    assert found == [(2, 0, 0), (3, 0, 0), (1, 0, 0)]
    assert (slow.asked, second.asked) == ([[1, 2]], [[3]])


def test_two_that_each_want_what_the_other_has_both_end(run: Run) -> None:
    samplers = [Sampler(gated=True), Sampler(gated=True)]
    first, found = in_thread(run, samplers[0], 1, 2, 3)
    assert samplers[0].at_work.wait(WAIT)
    second, other = in_thread(run, samplers[1], 4, 3, 2)
    assert samplers[1].at_work.wait(WAIT)
    third, more = in_thread(run, Sampler(), 1, 4)
    for sampler in samplers:
        sampler.may_end.set()
    for thread in (first, second, third):
        thread.join(WAIT)
        assert not thread.is_alive()
    assert (len(found), len(other), len(more)) == (3, 3, 2)
    assert [sampler.asked for sampler in samplers] == [[[1, 2, 3]], [[4]]]


def test_what_a_process_that_died_had_is_made_by_who_waited(run: Run) -> None:
    def fails(_requests: Sequence[SampleRequest]) -> list[Image.Image]:
        raise MemoryError

    with pytest.raises(MemoryError):
        ask(run, fails, 1)
    sampler = Sampler()
    assert colours(ask(run, sampler, 1)) == [(1, 0, 0)]
    assert sampler.asked == [[1]]


def test_many_images_are_claimed_some_at_a_time_in_whole_batches(run: Run) -> None:
    sampler, many = Sampler(), range(MOST + 3)
    assert len(ask(run, sampler, *many)) == len(many)
    assert [len(asked) for asked in sampler.asked] == [MOST, 3]


def test_an_image_that_is_asked_for_twice_is_sampled_once(run: Run) -> None:
    sampler = Sampler()
    assert colours(ask(run, sampler, 5, 5)) == [(5, 0, 0), (5, 0, 0)]
    assert sampler.asked == [[5]]
