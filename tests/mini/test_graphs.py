"""One training step: eager on a CPU, and on a GPU a graph that gives what eager steps give."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from duo_unlearn.mini.fit import graphs
from duo_unlearn.mini.fit.graphs import Step, optimizer_of

CPU = torch.device("cpu")


class Rows(NamedTuple):
    """What a regression reads, and what it is to find."""

    rows: Tensor
    wanted: Tensor


def some_rows(count: int) -> list[Rows]:
    generator = torch.Generator().manual_seed(0)
    return [Rows(*torch.randn(2, 8, 4, generator=generator)) for _ in range(count)]


def regression(device: torch.device) -> tuple[nn.Linear, Step]:
    torch.manual_seed(5)
    module = nn.Linear(4, 4).to(device)
    optimizer = optimizer_of(list(module.parameters()), 0.01, device)

    def take(batch: Rows) -> Tensor:
        loss: Tensor = (module(batch.rows) - batch.wanted).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return module, Step(take, optimizer, device)


def trained(device: torch.device, rates: list[float]) -> tuple[Tensor, list[float]]:
    module, step = regression(device)
    losses = [step(batch, rate).item() for batch, rate in zip(some_rows(len(rates)), rates, strict=True)]
    return module.weight.detach().cpu().clone(), losses


def test_a_step_learns_as_fast_as_its_rate_says() -> None:
    start = regression(CPU)[0].weight.detach()
    assert torch.equal(trained(CPU, [0.0, 0.0])[0], start)
    slow, fast = ((trained(CPU, [rate])[0] - start).abs().max().item() for rate in (1e-3, 1e-1))
    assert 0 < slow < fast / 10


def test_a_steps_gradients_are_not_added_to_the_last_ones() -> None:
    module, step = regression(CPU)
    batch = some_rows(1)[0]
    step(batch, 0.0)
    assert module.weight.grad is not None
    first = module.weight.grad.clone()
    step(batch, 0.0)
    assert torch.equal(module.weight.grad, first)


def test_a_graphs_batch_is_a_copy_that_each_later_batch_fills_in_place() -> None:
    first, second = some_rows(2)
    held = graphs._copied(first)
    where = [part.data_ptr() for part in held]
    assert isinstance(held, Rows)
    assert all(torch.equal(a, b) for a, b in zip(held, first, strict=True))
    before = first.rows.clone()
    graphs._fill(held, second)
    assert all(torch.equal(a, b) for a, b in zip(held, second, strict=True))
    assert [part.data_ptr() for part in held] == where
    assert torch.equal(first.rows, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs are a GPU's")
def test_graphed_steps_give_what_eager_steps_give() -> None:
    rates = [1e-2, 5e-2, 0.0, 2e-2]
    eager, graphed = trained(CPU, rates), trained(torch.device("cuda"), rates)
    assert graphed[1] == pytest.approx(eager[1], rel=1e-3)
    assert torch.allclose(graphed[0], eager[0], atol=1e-3)
