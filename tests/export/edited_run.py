"""A run folder of the mini model with an edit of each kind, and images of plain pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duo_unlearn.edits.files import write_changes
from duo_unlearn.edits.weights import Change, LowRank, Replacement
from duo_unlearn.families.load import load_model
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import write_text

from ..families import small_models as small
from ..random_adapter import random_adapter

CPU = torch.device("cpu")
PROMPT, SEED, STEPS, GUIDANCE = "a red knight holding a sword in the snow", 7, 2, 4.0
KEYS = ("attn2.to_k.weight", "attn2.to_v.weight")
TEXT = "encoder.layers.0.self_attn.v_proj.weight"
EDITS = {"duo": "lora", "uce": "low-rank", "text": "weights"}
"""The names of the run's edits, and the kind of each."""
FEW = {"steps": STEPS, "guidance": GUIDANCE, "batch": 4, "prompts": 2, "keep_prompts": 2, "neighbour_prompts": 1}


def run_folder(
    source: str,
    folder: Path,
    *,
    rank: int = 3,
    seed: int = 3,
    concept: str = "sword",
    size: float = 0.15,
    steps: int = STEPS,
) -> Path:
    """A run of a model with a random adapter, and settings of few prompts and steps; gives the folder."""
    model = load_model(source, CPU, resolution=None if source == "mini" else small.RESOLUTION)
    edit = Run(folder).edit("duo")
    random_adapter(model, edit, size=size, rank=rank, seed=seed, concept=concept, model=source)
    resolution = {} if source == "mini" else {"resolution": small.RESOLUTION}
    settings = {"model": source, "concept": concept, "evaluate": FEW | {"steps": steps}, **resolution}
    write_text(folder / "settings.yaml", json.dumps(settings))
    return folder


def add_weight_edits(folder: Path) -> None:
    """Give a run of the mini model a low-rank edit of its denoiser, and a full one of its text encoder."""
    model, generator = load_model("mini", CPU), torch.Generator().manual_seed(0)

    def noise(*size: int) -> torch.Tensor:
        return 0.15 * torch.randn(*size, generator=generator)

    provenance = {"base": model.fingerprint(), "concept": "sword", "model": "mini"}
    low: dict[str, Change] = {
        f"unet.{name}": LowRank(noise(value.shape[0], 2), noise(2, value.shape[1]))
        for name, value in model.denoiser.named_parameters()
        if name.endswith(KEYS)
    }
    write_changes(Run(folder).edit("uce"), low, provenance)
    value = dict(model.pipe.text_encoder.named_parameters())[TEXT]
    full: dict[str, Change] = {f"text_encoder.{TEXT}": Replacement(value + 3 * noise(*value.shape))}
    write_changes(Run(folder).edit("text"), full, provenance)


def plain_pixels(pipe: Any) -> np.ndarray:
    """An image of a diffusers pipeline, as anyone would make it."""
    pipe.set_progress_bar_config(disable=True)
    image = pipe(
        PROMPT, generator=torch.Generator().manual_seed(SEED), num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        height=64, width=64,
    ).images[0]  # fmt: skip
    return np.asarray(image).astype(int)
