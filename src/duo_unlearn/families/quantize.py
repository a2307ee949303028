"""A base whose frozen denoiser is kept in 8 or in 4 bits: where that can be had, and what diffusers is told.

int8 is torchao's, weight only, and runs on any device. nf4 is bitsandbytes' NormalFloat of QLoRA (Dettmers et al. 2023)
with the scales quantised too; diffusers gives it to GPUs alone, although the library has a backend for CPUs.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import DuoError
from ..records import Quantize
from .registry import FAMILIES, every_family

if TYPE_CHECKING:
    import torch


class Kept(NamedTuple):
    """How weights are kept. package: what keeps them so; extra: of ours that installs it.

    weight: bytes of one of them, with its share of the scales. words: for messages.
    """

    package: str
    extra: str
    weight: float
    words: str


KINDS: Final[dict[Quantize, Kept]] = {
    "int8": Kept("torchao", "quantize", 1.0, "8 bits"),
    # Half a byte, a scale of one byte for 64 weights, and one of four bytes for 256 scales.
    "nf4": Kept("bitsandbytes", "nf4", 0.5 + 1 / 64 + 4 / (64 * 256), "4 bits"),
}


def check_quantize(kind: Quantize, family: str, source: str) -> None:
    """Fail where a quantised base cannot be had, without loading anything. family: its name."""
    if not FAMILIES.get(family).quantizable or Path(source).suffix == ".safetensors":
        hint = "--set quantize=no; with little memory: --set train.gradient_checkpointing=true"
        able = " and ".join(one.title for one in every_family() if one.quantizable)
        problem = f"a quantised base is for {able}, in diffusers' format"
        raise DuoError(problem, got=f"{source} ({family})", hint=hint)
    if (lacking := why_no_package(kind)) is not None:
        raise DuoError(f"quantize={kind} needs a package that is not installed", got=KINDS[kind].package, hint=lacking)


def check_quantize_device(kind: Quantize, device: torch.device) -> None:
    """Fail where a device cannot have weights that are kept so."""
    if kind == "nf4" and device.type == "cpu":
        problem = "quantize=nf4 needs a GPU: diffusers keeps no weights in 4 bits without one"
        raise DuoError(problem, got=f"device {device}", hint="--set quantize=int8, which a CPU can have")


def why_no_package(kind: Quantize) -> str | None:
    """The command that installs what a kind needs, or None where it is there."""
    if kind == "no" or importlib.util.find_spec(KINDS[kind].package) is not None:
        return None
    return f"pip install duo_unlearn[{KINDS[kind].extra}]"


def quantization_of(kind: Quantize, denoiser: str, dtype: torch.dtype) -> Any:
    """What `from_pretrained` is given. denoiser: the part's name. dtype: what its layers compute in."""
    from diffusers.quantizers import PipelineQuantizationConfig

    return PipelineQuantizationConfig(quant_mapping={denoiser: _int8() if kind == "int8" else _nf4(dtype)})


def _int8() -> Any:
    from diffusers import TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def _nf4(dtype: torch.dtype) -> Any:
    from diffusers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
