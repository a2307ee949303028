"""What a pass through a published model keeps and holds, counted on the meta device: no weights, no pixels."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.records import Targets

from .published import CHANNELS, published_denoiser, published_vae


def with_adapter(family: str, targets: Targets, rank: int = 32) -> Any:
    """The denoiser with an adapter of PEFT's, on the meta device; the base is frozen, in bf16."""
    from peft import LoraConfig

    denoiser: Any = published_denoiser(family).to(torch.bfloat16).requires_grad_(False)
    pattern = re.compile(FAMILIES.get(family).targets[targets])
    layers = [n for n, layer in denoiser.named_modules() if pattern.fullmatch(n) and isinstance(layer, nn.Linear)]
    denoiser.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers))
    return denoiser


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


def _inputs(family: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """One row of what the denoiser reads, at the model's own resolution."""
    size = FAMILIES.get(family).size
    assert size is not None
    side = size.resolution // 8

    def empty(*shape: int) -> Tensor:
        return torch.empty(1, *shape, device="meta", dtype=torch.bfloat16)

    t, text_tokens = torch.empty(1, device="meta"), 512  # as many as the families below read at most
    if family == "z-image":
        return ([empty(16, 1, side, side)[0]], t, [empty(text_tokens, 2560)[0]]), {}
    if family == "qwen-image":
        packed = {"hidden_states": empty((side // 2) ** 2, 64), "img_shapes": [[(1, side // 2, side // 2)]]}
        return (), {**packed, "timestep": t, "encoder_hidden_states": empty(text_tokens, 3584)}
    if family in ("flux2", "flux2-klein"):
        width = 15360 if family == "flux2" else 7680
        places = {"txt_ids": empty(text_tokens, 4)[0], "img_ids": empty((side // 2) ** 2, 4)[0]}
        packed = {"hidden_states": empty((side // 2) ** 2, 128), "guidance": t if family == "flux2" else None}
        return (), {**packed, **places, "timestep": t, "encoder_hidden_states": empty(text_tokens, width)}
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
    denoiser = with_adapter(family, "self-attention")
    for name, parameter in denoiser.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()  # as in training
    if checkpointing:
        denoiser.enable_gradient_checkpointing()
    weights = {_storage_of(parameter) for parameter in denoiser.parameters()}
    storages: dict[Any, Any] = {}  # the storages themselves, as if the way back held them

    def note(tensor: Tensor) -> Tensor:
        if (kept := _storage_of(tensor)) not in weights:
            storages[kept] = tensor.untyped_storage()
        return tensor

    positional, named = _inputs(family)
    with (
        patch("torch.nn.functional.scaled_dot_product_attention", _attend),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        denoiser(*positional, **named, return_dict=False)
    return sum(int(storage.nbytes()) for storage in storages.values())


class _Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """How many bytes the tensors that are made inside it take at once, at most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: dict[Any, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {_storage_of(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and (kept := _storage_of(x)) not in given:
                self.alive[kept] = int(x.untyped_storage().nbytes())
        self.alive = {kept: size for kept, size in self.alive.items() if not kept.expired()}
        self.peak = max(self.peak, sum(self.alive.values()))
        return out


def _storage_of(tensor: Tensor) -> Any:
    """Where its values lie; kept alive by tensors alone."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _peak(run: Callable[[], Any]) -> int:
    with torch.no_grad(), patch("torch.nn.functional.scaled_dot_product_attention", _attend), _Memory() as held:
        run()
    return int(held.peak)


def peak_bytes(family: str) -> tuple[int, int, int]:
    """Bytes that one bf16 row of the denoiser holds at once without gradients, one image's decoding, its encoding.

    Weights and inputs are not counted, nor what a library's kernels take for themselves.
    """
    size = FAMILIES.get(family).size
    assert size is not None
    denoiser, vae = published_denoiser(family).to(torch.bfloat16), published_vae(family).to(torch.bfloat16)
    positional, named = _inputs(family)
    side = size.resolution // 8
    frame = (1,) if family == "qwen-image" else ()  # its VAE reads videos
    latents = torch.empty(1, CHANNELS[family], *frame, side, side, device="meta", dtype=torch.bfloat16)
    pixels = torch.empty(1, 3, *frame, size.resolution, size.resolution, device="meta", dtype=torch.bfloat16)
    return (
        _peak(lambda: denoiser(*positional, **named, return_dict=False)),
        _peak(lambda: vae.decode(latents, return_dict=False)),
        _peak(lambda: vae.encode(pixels, return_dict=False)),
    )
