"""The training state on disk: adapter, optimizer and step in one safetensors file, whole or absent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..edits.lora import adapter_tensors, load_adapter_tensors
from ..errors import DuoError
from ..families.interface import Model
from ..records import Pair
from ..storage.files import read_tensors, write_tensors
from ..storage.forms import deciding
from ..storage.optimizer_state import optimizer_tensors, restore_optimizer
from .duo.settings import TrainSettings

SHOWN = ("keep_checkpoints", "preview_steps")
"""Settings of how a training is watched, which an edit says nothing of."""
FREE = ("checkpointing_steps", "report_to", *SHOWN)
"""What may change between a run and its resumption without changing the result."""


def identity(settings: TrainSettings, pairs: Sequence[Pair], model: Model, seed: int) -> str:
    """What decides a training's course: settings, pairs, base model as loaded, seed. SHA-256, hexadecimal.

    Prompts that are read count where a user brought the pair. One that was made here would have other pictures.
    """
    content = {name: value for name, value in deciding(settings).items() if name not in FREE}
    if settings.lr_scheduler == "constant":
        content.pop("max_train_steps")  # a run at a constant rate can be made longer afterwards
    reads = settings.captions != "none"
    hashes = [pair.content[: 4 if reads and pair.seed is None else 2] for pair in pairs]
    return hashlib.sha256(
        json.dumps([content, hashes, model.fingerprint(), model.variant, seed], sort_keys=True).encode()
    ).hexdigest()


def save_checkpoint(
    path: Path, denoiser: nn.Module, optimizer: torch.optim.Optimizer, step: int, key: str, scaler: Any = None
) -> None:
    """Write the state after `step` steps."""
    tensors = {f"adapter/{name}": value for name, value in adapter_tensors(denoiser).items()}
    tensors |= {f"optimizer/{name}": value for name, value in optimizer_tensors(optimizer).items()}
    metadata = {"step": str(step), "key": key}
    if scaler is not None:
        metadata["scaler"] = json.dumps(scaler.state_dict())
    write_tensors(path, tensors, metadata)


def load_checkpoint(
    path: Path, denoiser: nn.Module, optimizer: torch.optim.Optimizer, key: str, scaler: Any = None
) -> int:
    """Restore a state; gives its step, 0 when there is none. Another training's checkpoint is a DuoError."""
    if not path.exists():
        return 0
    tensors, metadata = read_tensors(path)
    if metadata.get("key") != key:
        raise DuoError(
            f"{path} belongs to a training with other settings, pairs or base model",
            hint="choose another --output, or delete the folder's train/ to train anew",
        )
    load_adapter_tensors(denoiser, {k[len("adapter/") :]: v for k, v in tensors.items() if k.startswith("adapter/")})
    restore_optimizer(optimizer, {k[len("optimizer/") :]: v for k, v in tensors.items() if k.startswith("optimizer/")})
    if scaler is not None and "scaler" in metadata:
        scaler.load_state_dict(json.loads(metadata["scaler"]))
    return int(metadata["step"])
