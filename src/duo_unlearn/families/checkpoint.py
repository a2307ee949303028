"""A model as one .safetensors file, under its tensors' original names: which family it is of, by the header alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..errors import DuoError

_ROOTS: Final = ("model.diffusion_model.", "")
# The first that is there decides. SD 1 and 2 differ in the text encoder, and the mini model in its width.
_TELLING: Final = (
    ("sdxl", "conditioner.embedders.1.model.ln_final.weight"),
    ("sd2", "cond_stage_model.model.ln_final.weight"),
    ("sd1", "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"),
)
_TRANSFORMERS: Final = (
    ("sd3", "joint_blocks.0.x_block.attn.qkv.weight"),
    ("flux", "double_blocks.0.img_attn.qkv.weight"),
)
_KINDS: Final = "Stable Diffusion 1, 2, XL, 3 and FLUX.1"


def checkpoint_family(path: Path) -> str:
    """The family of a checkpoint file; one of another kind (an adapter, a part of a model) is a DuoError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as handle:
            names = set(handle.keys())
            width = _width(handle, names)
    except (SafetensorError, OSError) as error:
        raise DuoError(f"{path} is damaged", got=str(error)[:150], hint="download it again") from error
    for family, name in _TELLING:
        if name in names:
            return "mini" if family == "sd1" and width not in (None, 768) else family
    for family, name in _TRANSFORMERS:
        if any(root + name in names for root in _ROOTS):
            return family
    got = (
        "an adapter (LoRA)"
        if any("lora" in name for name in names)
        else f"tensors such as {min(names, default='none')}"
    )
    raise DuoError(f"{path} is no model checkpoint that is supported", got=got, hint=f"a whole checkpoint of {_KINDS}")


def _width(handle: object, names: set[str]) -> int | None:
    """What the UNet's first cross-attention reads."""
    found = sorted(n for n in names if n.startswith(_ROOTS[0]) and n.endswith("attn2.to_k.weight"))
    return int(handle.get_slice(found[0]).get_shape()[1]) if found else None  # type: ignore[attr-defined]
