"""The checkpoint format: a whole model of a U-Net family in one file, under the original (LDM) names of its tensors.

A1111 and ComfyUI load such a file as a model. The names are those that diffusers' `from_single_file` reads back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from ..edits.interface import KINDS, Edit
from ..edits.merge import merge
from ..families.checkpoint import PREDICTS_V, ZERO_SNR
from ..families.interface import Model
from ..families.load import load_checkpoint
from ..storage.files import write_tensors
from .interface import Base, Format, file_name
from .model_spec import metadata

if TYPE_CHECKING:
    from ..families.family import Family

Tensors = dict[str, Tensor]
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def checkpoint_of(pipe: Any) -> Tensors:
    """All weights of a pipeline, under their names in a checkpoint file."""
    found = {f"model.diffusion_model.{k}": v for k, v in _unet(pipe.unet).items()}
    found |= {f"first_stage_model.{k}": v for k, v in _vae(pipe.vae).items()}
    second = getattr(pipe, "text_encoder_2", None)
    if second is not None:
        found |= {f"conditioner.embedders.0.transformer.{k}": v for k, v in _clip(pipe.text_encoder).items()}
        found |= {f"conditioner.embedders.1.model.{k}": v for k, v in _open_clip(second).items()}
        found |= _marks(pipe.scheduler.config)
    elif pipe.unet.config.cross_attention_dim == 1024:  # SD 2.x reads OpenCLIP
        found |= {f"cond_stage_model.model.{k}": v for k, v in _open_clip(pipe.text_encoder).items()}
    else:
        found |= {f"cond_stage_model.transformer.{k}": v for k, v in _clip(pipe.text_encoder).items()}
    return found


def _marks(scheduler: Any) -> Tensors:
    """Empty tensors whose names say how SDXL predicts; without them other tools take it for ε."""
    if scheduler.get("prediction_type") != "v_prediction":
        return {}
    names = [PREDICTS_V, *([ZERO_SNR] if scheduler.get("rescale_betas_zero_snr") else [])]
    return {name: torch.zeros(0) for name in names}


def _renamed(tensors: Mapping[str, Tensor], rename: Callable[[str], str]) -> Tensors:
    return {rename(name): value for name, value in tensors.items()}


def _unet(unet: Any) -> Tensors:
    layers = unet.config.layers_per_block
    stride = layers + 1  # of input blocks a level; an output level has as many resnets
    upsampled = {i: 1 + bool(getattr(block, "attentions", None)) for i, block in enumerate(unet.up_blocks)}

    def rename(name: str) -> str:
        for ours, theirs in _ENDS.items():
            if name.startswith(f"{ours}."):
                return theirs + name.removeprefix(ours)
        if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
            kind, index, rest = match[1], int(match[2]), match[3]
            return f"middle_block.{2 * index + (kind == 'attentions')}.{_inside(kind, rest)}"
        match = re.fullmatch(
            r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name
        )
        assert match is not None, name
        side, level, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if kind == "downsamplers":
            return f"input_blocks.{level * stride + stride}.0.{rest.replace('conv.', 'op.')}"
        if kind == "upsamplers":
            return f"output_blocks.{level * stride + layers}.{upsampled[level]}.{rest}"
        block = (
            f"input_blocks.{level * stride + index + 1}"
            if side == "down"
            else f"output_blocks.{level * stride + index}"
        )
        return f"{block}.{int(kind == 'attentions')}.{_inside(kind, rest)}"

    return _renamed(unet.state_dict(), rename)


def _inside(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    layer, _, end = rest.partition(".")
    return f"{_RESNET[layer]}.{end}"


def _vae(vae: Any) -> Tensors:
    levels = len(vae.config.up_block_types)

    def rename(name: str) -> str:
        name = name.replace("conv_norm_out", "norm_out")
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_shortcut", "nin_shortcut")
        name = name.replace("group_norm", "norm").replace("to_out.0", "proj_out")
        return re.sub(r"attn_1\.to_(q|k|v)", r"attn_1.\1", name)

    found = _renamed(vae.state_dict(), rename)
    # Attention's linear layers are 1×1 convolutions there.
    return {
        k: v[:, :, None, None] if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", k) else v for k, v in found.items()
    }


def _clip(encoder: Any) -> Tensors:
    """OpenAI's CLIP is kept under transformers' names, "text_model." in front (which newer ones drop)."""
    return _renamed(encoder.state_dict(), lambda name: "text_model." + name.removeprefix("text_model."))


def _open_clip(encoder: Any) -> Tensors:
    """OpenCLIP's names; query, key and value are one matrix there."""
    found: Tensors = {}
    weights = _clip(encoder)
    simple = {
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    for name, value in weights.items():
        if name in simple:
            found[simple[name]] = value
        elif name.endswith("text_projection.weight"):
            found["text_projection"] = value.T.contiguous()
        elif match := re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", name):
            layer, inner, end = match[1], match[2], match[3]
            to = f"transformer.resblocks.{layer}"
            if inner == "self_attn.q_proj":
                three = [weights[name.replace("q_proj", f"{x}_proj")] for x in "qkv"]
                found[f"{to}.attn.in_proj_{end}"] = torch.cat(three)
            elif inner in _OPEN_CLIP:
                found[f"{to}.{_OPEN_CLIP[inner]}.{end}"] = value
    return found


def _why_not(_edit: Edit, _family: Family) -> str | None:
    return None


def _write(edit: Edit, model: Model, folder: Path) -> Path:
    merge(edit, model)
    path = folder / file_name(edit)
    tensors = checkpoint_of(model.pipe)
    write_tensors(path, tensors, {"format": "pt", **metadata(edit, model, tensors, adapter=False)})
    return path


def _load(target: Path, base: Base) -> Model:
    return load_checkpoint(target, base.config or base.source, base.device, base.dtype, base.resolution)


CHECKPOINT: Final = Format(
    name="checkpoint",
    title="a whole model in one file for A1111 and ComfyUI",
    takes=frozenset(KINDS),
    denoisers=("unet",),
    removable=False,
    loading="Put FILE into ComfyUI's models/checkpoints or A1111's models/Stable-diffusion.",
    why_not=_why_not,
    write=_write,
    load=_load,
)
