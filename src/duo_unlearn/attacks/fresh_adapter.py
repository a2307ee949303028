"""A new low-rank adapter on a model as it stands, as who fine-tunes a merged model puts one there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..families.interface import Model


@contextlib.contextmanager
def fresh_adapter(model: Model, rank: int, generator: torch.Generator) -> Iterator[list[Tensor]]:
    """The tensors of an adapter that acts inside the block, float32, with gradients. Nothing is left after it.

    It lies on all attention projections of the denoiser (alpha = rank, Gaussian A, zero B), beside whatever edits
    change there. It is no parameter of the model, and PEFT does not know of it.
    """
    modules = dict(model.denoiser.named_modules())
    tensors: list[Tensor] = []
    # Blocks that were compiled before do not look for hooks.
    with contextlib.ExitStack() as stack, torch.compiler.set_stance("force_eager"):
        for name in model.adapted_layers("all-attention"):
            layer: Any = getattr(modules[name], "base_layer", modules[name])
            down = (torch.randn(rank, layer.in_features, generator=generator) / rank).to(model.device)
            up = torch.zeros(layer.out_features, rank, device=model.device)
            pair = (down.requires_grad_(True), up.requires_grad_(True))
            stack.callback(layer.register_forward_hook(_Beside(*pair)).remove)
            tensors += pair
        yield tensors


class _Beside:
    """A hook that adds B A x to what a layer gives. down: A, (rank, in); up: B, (out, rank)."""

    def __init__(self, down: Tensor, up: Tensor) -> None:
        self.down, self.up = down, up

    def __call__(self, _layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        change = inputs[0].to(self.down.dtype) @ self.down.T @ self.up.T
        return output + change.to(output.dtype)
