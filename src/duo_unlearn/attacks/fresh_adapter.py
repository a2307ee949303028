"""A new low-rank adapter on a model as it stands, as who fine-tunes a merged model puts one there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from ..families.interface import Model

FASTER: Final = 10
"""How many times the rate of weights that of a new adapter is: on Stable Diffusion diffusers' scripts have 1e-4."""


def adapter_rate(model: Model) -> float:
    """The learning rate of a new adapter that fine-tunes the denoiser."""
    return FASTER * model.kind.relearning_rate


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


@torch.no_grad()
def learnt_changes(model: Model, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """What the tensors of such an adapter would be in the weights, on the CPU, by "PART.PARAMETER"."""
    names = [f"{model.denoiser_name}.{layer}.weight" for layer in model.adapted_layers("all-attention")]
    pairs = zip(names, tensors[::2], tensors[1::2], strict=True)
    return {name: (up @ down).cpu() for name, down, up in pairs}


class _Beside:
    """A hook that adds B A x to what a layer gives. down: A, (rank, in); up: B, (out, rank)."""

    def __init__(self, down: Tensor, up: Tensor) -> None:
        self.down, self.up = down, up

    def __call__(self, _layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        change = inputs[0].to(self.down.dtype) @ self.down.T @ self.up.T
        return output + change.to(output.dtype)
