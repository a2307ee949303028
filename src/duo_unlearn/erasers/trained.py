"""Named weights of a model in training, beside what they were: for erasers that change whole weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..edits.weights import Replacement, locate
from ..errors import DuoError
from ..families.interface import Model


class TrainedWeights:
    """tensors: "PART.PARAMETER" → the parameter, float32, with gradients."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self._before = {name: tensor.data for name, tensor in tensors.items()}
        for tensor in tensors.values():
            tensor.data = tensor.data.clone()
            tensor.requires_grad_(True)

    @contextlib.contextmanager
    def original(self) -> Iterator[None]:
        """The original weights inside the block, without gradients.

        Never between a pass of the trained model and its backward pass, which reads the weights again.
        """
        now = {name: tensor.data for name, tensor in self.tensors.items()}
        self._put(self._before)
        try:
            with torch.no_grad():
                yield
        finally:
            self._put(now)

    def changes(self) -> dict[str, Replacement]:
        """What an edit's file holds: every weight that differs, whole."""
        return {
            name: Replacement(tensor.detach().cpu().clone())
            for name, tensor in self.tensors.items()
            if not torch.equal(tensor.data, self._before[name])
        }

    def put_back(self) -> None:
        """The original weights for good, without gradients."""
        self._put(self._before)
        for tensor in self.tensors.values():
            tensor.requires_grad_(False)
            tensor.grad = None

    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self.tensors.items():
            tensor.data = values[name]


@contextlib.contextmanager
def trained_weights(model: Model, names: Sequence[str]) -> Iterator[TrainedWeights]:
    """Some weights of a model, "PART.PARAMETER", in training inside the block.

    Weights in half precision are a DuoError: a step changes most of them by less than they can show.
    """
    found = {}
    for name in names:
        parameter = locate(model, name)
        if parameter is None:
            raise DuoError("the model has no such weight", got=name, hint="a fault of the program: report it")
        if parameter.dtype != torch.float32:
            got = f"{name} in {str(parameter.dtype).removeprefix('torch.')}"
            raise DuoError("whole weights are trained in full precision", got=got, hint="--mixed_precision no")
        found[name] = parameter
    weights = TrainedWeights(found)
    try:
        yield weights
    finally:
        weights.put_back()
