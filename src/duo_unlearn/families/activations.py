"""What a training pass keeps for its way back: the published denoisers on the meta device, so no device is needed.

The table of `duo_unlearn.needs` comes from here; a test compares the two.
"""

from __future__ import annotations

import re
from typing import Any, Final
from unittest.mock import patch

import torch
from torch import Tensor, nn

from .published import published_denoiser
from .registry import FAMILIES

_LATENT: Final = {"sd1": 64, "sd2": 96, "sdxl": 128, "sd3": 128, "flux": 128}
"""Side of a latent at the model's own resolution."""


class _Attention(torch.autograd.Function):
    """Keeps what a fused attention keeps: query, key, value and output, not the matrix of weights."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, *_gradients: Any) -> Any:
        raise NotImplementedError("counted, never run")


def _attend(query: Tensor, key: Tensor, value: Tensor, *_rest: Any, **_named: Any) -> Tensor:
    out: Tensor = _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]
    return out


def _inputs(family: str) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """One row of what the denoiser reads, at the model's own resolution."""
    side = _LATENT[family]

    def empty(*shape: int) -> Tensor:
        return torch.empty(1, *shape, device="meta", dtype=torch.bfloat16)

    t = torch.empty(1, device="meta")
    if family in ("sd1", "sd2"):
        return (empty(4, side, side), t), {"encoder_hidden_states": empty(77, 768 if family == "sd1" else 1024)}
    if family == "sdxl":
        added = {"text_embeds": empty(1280), "time_ids": empty(6)}
        return (empty(4, side, side), t), {"encoder_hidden_states": empty(77, 2048), "added_cond_kwargs": added}
    text = {"timestep": t, "encoder_hidden_states": empty(333 if family == "sd3" else 256, 4096)}
    if family == "sd3":
        return (), {**text, "hidden_states": empty(16, side, side), "pooled_projections": empty(2048)}
    tokens = (side // 2) ** 2
    places = {"txt_ids": empty(256, 3)[0], "img_ids": empty(tokens, 3)[0]}
    packed = {"hidden_states": empty(tokens, 64), "pooled_projections": empty(768), "guidance": t}
    return (), {**text, **packed, **places}


def saved_bytes(family: str, *, checkpointing: bool) -> int:
    """Bytes that one row of a bf16 training pass keeps, adapter on the default layers, weights not counted."""
    from peft import LoraConfig

    denoiser: Any = published_denoiser(family).to(torch.bfloat16).requires_grad_(False)
    pattern = re.compile(FAMILIES[family].targets["self-attention"])
    layers = [n for n, layer in denoiser.named_modules() if pattern.fullmatch(n) and isinstance(layer, nn.Linear)]
    denoiser.add_adapter(LoraConfig(r=32, lora_alpha=32, target_modules=layers))
    for name, parameter in denoiser.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()  # as in training
    if checkpointing:
        denoiser.enable_gradient_checkpointing()
    weights = {parameter.untyped_storage()._cdata for parameter in denoiser.parameters()}  # noqa: SLF001
    kept: dict[int, Any] = {}  # the storages themselves, or their addresses would be used again

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:  # noqa: SLF001
            kept[storage._cdata] = storage  # noqa: SLF001
        return tensor

    given, named = _inputs(family)
    with (
        patch("torch.nn.functional.scaled_dot_product_attention", _attend),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        denoiser(*given, **named, return_dict=False)
    return sum(int(storage.nbytes()) for storage in kept.values())
