"""The format of kohya's scripts: one adapter file, which ComfyUI and A1111 read.

Both know a U-Net's layers under kohya's names, and ComfyUI a transformer's under diffusers' own. A U-Net's file has
alpha; a transformer's has it multiplied in, as diffusers' loader refuses such an entry there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from ..edits.files import as_lora, why_no_lora
from ..edits.interface import Edit
from ..edits.lora import LoraEdit, check_layers
from ..families.interface import Model
from ..storage.files import write_tensors
from .interface import Base, Format, file_name
from .model_spec import metadata

if TYPE_CHECKING:
    from ..families.family import Family


def _why_not(edit: Edit, _family: Family) -> str | None:
    return why_no_lora(edit)


def kohya_tensors(adapter: LoraEdit) -> dict[str, Tensor]:
    """The tensors of an adapter at its strength, under the names that such a file has."""
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in adapter.layers.items():
        if adapter.prefix == "unet":
            key = "lora_unet_" + name.removeprefix("unet.").replace(".", "_")
            tensors[f"{key}.lora_down.weight"] = down
            tensors[f"{key}.lora_up.weight"] = adapter.strength * up
            tensors[f"{key}.alpha"] = torch.tensor(float(adapter.config["lora_alpha"]))
        else:
            tensors[f"{name}.lora_A.weight"] = down
            tensors[f"{name}.lora_B.weight"] = adapter.strength * adapter.scale * up
    return tensors


def _write(edit: Edit, model: Model, folder: Path) -> Path:
    adapter = as_lora(edit)
    check_layers(model, adapter)
    path = folder / file_name(edit)
    sizes = {"ss_network_dim": adapter.config["r"], "ss_network_alpha": adapter.config["lora_alpha"]}
    tensors = kohya_tensors(adapter)
    written = {key: str(size) for key, size in sizes.items()} | metadata(edit, model, tensors, adapter=True)
    module = {"ss_network_module": "networks.lora"} if adapter.prefix == "unet" else {}
    write_tensors(path, tensors, {"format": "pt", **module, **written})
    return path


def _load(target: Path, base: Base) -> Model:
    model = base.load()
    model.pipe.load_lora_weights(target.parent, weight_name=target.name)
    return model


KOHYA: Final = Format(
    name="kohya",
    title="an adapter in one file for ComfyUI, and A1111 (Stable Diffusion 1, 2, XL)",
    takes=frozenset({"lora", "low-rank"}),
    denoisers=("unet", "transformer"),
    removable=True,
    loading="Put FILE into ComfyUI's models/loras (A1111's models/Lora for Stable Diffusion 1, 2, XL); weight 1.",
    why_not=_why_not,
    write=_write,
    load=_load,
)
