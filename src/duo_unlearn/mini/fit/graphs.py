"""One step of training; on a GPU as a CUDA graph: a small network's time there goes into launching kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from .feed import to_device

WARM_UP: Final = 3
"""Eager steps before the capture, at learning rate 0, as torch's notes on CUDA graphs ask."""


class Step:
    """Takes training steps: eagerly on a CPU, and on a GPU as a graph that is captured at the first one.

    take: forward, backward and the optimizer's step of a batch on the device; gives the loss. optimizer: of
    `optimizer_of`.
    """

    def __init__(self, take: Callable[[Any], Tensor], optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.take, self.optimizer, self.device = take, optimizer, device
        self.graph: GraphedStep | None = None

    def __call__(self, batch: Any, rate: float) -> Tensor:
        """One step at a learning rate; gives its loss."""
        (group,) = self.optimizer.param_groups
        if self.device.type != "cuda":
            group["lr"] = rate
            self.optimizer.zero_grad(set_to_none=True)
            return self.take(to_device(batch, self.device))
        if self.graph is None:
            self.graph = GraphedStep(self.take, to_device(batch, self.device), self.optimizer)
        group["lr"].fill_(rate)
        return self.graph(batch)


def optimizer_of(parameters: list[nn.Parameter], weight_decay: float, device: torch.device) -> torch.optim.AdamW:
    """AdamW; on a GPU one that a graph can hold, whose learning rate is a tensor."""
    graphed = device.type == "cuda"
    rate = torch.tensor(0.0, device=device) if graphed else 0.0
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay, betas=(0.9, 0.99), capturable=graphed)


class GraphedStep:
    """Forward, backward, clipping and optimizer step of one batch, captured once and replayed on the batches after it.

    The optimizer must be capturable, its learning rates tensors; every batch must have the first one's shapes. The
    capture itself changes neither weights nor the optimizer's state.
    """

    def __init__(self, step: Callable[[Any], Tensor], first: Any, optimizer: torch.optim.Optimizer) -> None:
        self.batch = _copied(first)
        rates = [group["lr"].clone() for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"].zero_()
        before = {id(state): {k: v.clone() for k, v in state.items()} for state in optimizer.state.values()}
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                optimizer.zero_grad(set_to_none=True)
                step(self.batch)
        torch.cuda.current_stream().wait_stream(side)
        optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = step(self.batch)
        for state in optimizer.state.values():
            for name, value in state.items():
                old = before.get(id(state), {}).get(name)
                value.zero_() if old is None else value.copy_(old)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"].copy_(rate)

    def __call__(self, batch: Any) -> Tensor:
        """Take one step on a batch; gives its loss, a tensor that the next step overwrites."""
        _fill(self.batch, batch)
        self.graph.replay()
        return self.loss


def _copied(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return batch.clone()
    return type(batch)(*(_copied(part) for part in batch))


def _fill(target: Any, source: Any) -> None:
    if isinstance(target, Tensor):
        target.copy_(source, non_blocking=True)
        return
    for mine, theirs in zip(target, source, strict=True):
        _fill(mine, theirs)
