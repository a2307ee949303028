"""A batch is a function of seed, stage and step alone, whoever makes it and from where on."""

from __future__ import annotations

import os
import random
import sys
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from duo_unlearn.mini.fit import feed
from duo_unlearn.mini.fit.batches import VaeBatch, vae_batches
from duo_unlearn.mini.fit.damage import to_pixels
from duo_unlearn.mini.fit.feed import Draw, batches, draw_for, in_order, to_device

CPU = torch.device("cpu")
# Python 3.12 warns of every fork beside threads; the workers only draw.
FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_a_stages_randomness_is_a_function_of_seed_stage_and_step() -> None:
    def numbers(seed: int, stage: str, step: int) -> tuple[float, float]:
        draw = draw_for(seed, stage, step)
        return draw.rng.random(), torch.rand(1, generator=draw.generator).item()

    assert numbers(0, "vae", 3) == numbers(0, "vae", 3)
    several = [numbers(0, "vae", 3), numbers(1, "vae", 3), numbers(0, "clip", 3), numbers(0, "vae", 4)]
    assert len({python for python, _ in several}) == len({torchs for _, torchs in several}) == 4


def taken(workers: int, steps: range) -> list[VaeBatch]:
    return list(batches(vae_batches(batch=3), seed=0, stage="vae", steps=steps, workers=workers))


def same(one: VaeBatch, other: VaeBatch) -> bool:
    return type(one) is type(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@FORKS
def test_worker_processes_make_the_same_batches() -> None:
    here, there = taken(0, range(5)), taken(2, range(5))
    assert len(here) == len(there) == 5
    assert all(same(one, other) for one, other in zip(here, there, strict=True))
    assert not same(here[0], here[1])


def test_the_batches_from_a_step_on_are_those_of_the_whole() -> None:
    whole, rest = taken(0, range(5)), taken(0, range(3, 5))
    assert [same(one, other) for one, other in zip(whole[3:], rest, strict=True)] == [True, True]


def process_of(item: int) -> tuple[int, int, Tensor]:
    return item, os.getpid(), to_pixels(torch.full((1, 64, 64, 3), item, dtype=torch.uint8))


@FORKS
@pytest.mark.parametrize(("workers", "here"), [(0, True), (2, False)])
def test_what_is_made_comes_in_order_from_as_many_processes_as_asked_for(workers: int, here: bool) -> None:
    items = random.Random(0).sample(range(100), 12)
    found = list(in_order(process_of, items, workers))
    assert [item for item, _, _ in found] == items
    assert len({process for _, process, _ in found}) == max(workers, 1)
    assert (os.getpid() in {process for _, process, _ in found}) == here
    assert all(torch.equal(pixels, process_of(item)[2]) for item, _, pixels in found)


def test_a_batch_is_made_when_it_is_needed_where_there_are_no_workers() -> None:
    made: list[int] = []

    def make(draw: Draw) -> int:
        made.append(1)
        return draw.rng.randrange(10)

    feeding = batches(make, seed=0, stage="x", steps=range(1000), workers=0)
    next(feeding)
    assert len(made) <= 2


@pytest.mark.parametrize(
    ("platform", "cores", "workers"),
    [("linux", 2, 0), ("linux", 5, 0), ("linux", 6, 4), ("linux", 64, 14), ("linux", None, 0), ("darwin", 16, 0)],
)
def test_few_cores_are_left_to_the_training_itself(
    monkeypatch: pytest.MonkeyPatch, platform: str, cores: int | None, workers: int
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert feed.worker_count() == workers


class Named(NamedTuple):
    """Rows and a word, as a batch may hold them."""

    rows: Tensor
    name: str


def test_a_batch_keeps_its_form_on_the_way_to_the_device() -> None:
    rows = torch.arange(3)
    batch: Any = (Named(rows, "left"), rows + 1)
    moved = to_device(batch, CPU)
    assert isinstance(moved[0], Named)
    assert moved[0].name == "left"
    assert torch.equal(moved[0].rows, rows)
    assert torch.equal(moved[1], rows + 1)
    assert torch.equal(to_device(rows, CPU), rows)
