"""A stage that is stopped and started again gives the weights of an uninterrupted one, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from duo_unlearn.mini.fit.feed import Draw, draw_for
from duo_unlearn.mini.fit.loop import Schedule, Trained, cosine_after, train_stage
from duo_unlearn.storage.files import read_tensors, write_tensors

CPU = torch.device("cpu")
SCHEDULES = [
    Schedule(steps=11, lr=1e-2, warmup=3, hold=0.4),
    Schedule(steps=11, lr=1e-2, warmup=3, hold=0.4, ema=0.9),
]


class Stopped(Exception):
    """What a signal does to a training."""


class Rows(NamedTuple):
    """Random rows, and what a regression is to find in them."""

    rows: Tensor
    wanted: Tensor


def fresh() -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(4, 2)


def random_rows(draw: Draw) -> Rows:
    rows = torch.randn(8, 4, generator=draw.generator)
    return Rows(rows, rows[:, :2] * draw.rng.random())


def loss_on(module: nn.Module, stop_at: int | None = None) -> Callable[[Rows], Tensor]:
    """A regression; raises at the call `stop_at`."""
    calls = 0

    def loss_of(batch: Rows) -> Tensor:
        nonlocal calls
        if calls == stop_at:
            raise Stopped
        calls += 1
        loss: Tensor = (module(batch.rows).float() - batch.wanted).square().mean()
        return loss

    return loss_of


def run(module: nn.Module, schedule: Schedule, folder: Path, stop_at: int | None = None, seed: int = 0) -> Trained:
    return train_stage(
        "part", module, random_rows, loss_on(module, stop_at), schedule,
        folder=folder, seed=seed, device=CPU, save_every=4, quiet=True,
    )  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["last weights", "average"])
@pytest.mark.parametrize("stop_at", [2, 6, 10], ids=["before a checkpoint", "after one", "at the last step"])
def test_a_stopped_stage_goes_on_bit_for_bit(tmp_path: Path, schedule: Schedule, stop_at: int) -> None:
    whole, stopped, resumed = fresh(), fresh(), fresh()
    loss = run(whole, schedule, tmp_path / "whole").loss
    with pytest.raises(Stopped):
        run(stopped, schedule, tmp_path / "parts", stop_at)
    assert (tmp_path / "parts" / "part.checkpoint.safetensors").exists() == (stop_at > 4)
    assert run(resumed, schedule, tmp_path / "parts").loss == loss
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_a_resumed_stage_runs_only_the_steps_that_are_left(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(fresh(), SCHEDULES[0], tmp_path, stop_at=9)
    with pytest.raises(Stopped):
        run(fresh(), SCHEDULES[0], tmp_path, stop_at=2)  # steps 8 and 9 of 11
    run(fresh(), SCHEDULES[0], tmp_path, stop_at=3)  # steps 8, 9, 10: a fourth call would raise


def test_the_seconds_of_the_processes_before_count_too(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(fresh(), SCHEDULES[0], tmp_path, stop_at=9)
    path = tmp_path / "part.checkpoint.safetensors"
    tensors, facts = read_tensors(path)
    assert 0 < float(facts["seconds"]) < 60
    write_tensors(path, tensors, facts | {"seconds": "1000.0"})
    assert 1000 < run(fresh(), SCHEDULES[0], tmp_path).seconds < 1060


def test_a_stage_says_what_it_took(tmp_path: Path) -> None:
    trained = run(fresh(), SCHEDULES[0], tmp_path)
    assert 0 < trained.seconds < 60
    assert 0 < trained.loss < 10


def test_training_changes_the_weights_as_the_seed_says(tmp_path: Path) -> None:
    first, second = fresh(), fresh()
    run(first, SCHEDULES[0], tmp_path / "a", seed=0)
    run(second, SCHEDULES[0], tmp_path / "b", seed=1)
    assert not torch.equal(first.weight, fresh().weight)
    assert not torch.equal(first.weight, second.weight)


def test_the_average_is_not_the_last_weights(tmp_path: Path) -> None:
    last, average = fresh(), fresh()
    run(last, SCHEDULES[0], tmp_path / "a")
    run(average, SCHEDULES[1], tmp_path / "b")
    assert not torch.equal(last.weight, average.weight)


def test_training_finds_what_the_rows_hold(tmp_path: Path) -> None:
    module = fresh()
    before = loss_on(module)(random_rows(draw_for(0, "part", 0))).item()
    trained = run(module, Schedule(steps=150, lr=5e-2, warmup=3), tmp_path)
    assert trained.loss < before / 2
    assert not module.training


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (49, 1.0), (50, 1.0), (75, 0.5), (100, 0.0)]
)
def test_learning_rate_by_hand(step: int, factor: float) -> None:
    assert cosine_after(step, 100, warmup=10, hold=0.5) == pytest.approx(factor, abs=1e-12)
