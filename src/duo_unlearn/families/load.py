"""Loading a model by name: `mini`, a local diffusers folder, or a hub id. Safetensors only, no remote code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

from ..errors import DuoError
from .base import Model
from .kinds import check_class, family_of, variant_of
from .stable_diffusion import StableDiffusion

DTYPES: Final = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """auto: CUDA, else MPS, else the CPU. Any other name is torch's."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        got = f"{name}: {str(error).splitlines()[0]}"
        raise DuoError("the device cannot be used", got=got, hint="auto or cpu") from error
    return device


def load_model(source: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Model:
    """A model on a device. dtype: of its frozen weights; an adapter is float32 whatever this is."""
    from diffusers import StableDiffusionPipeline

    family = family_of(source)
    folder: str | Path = source
    if source == "mini":
        from ..mini.bundle import weights_folder

        folder = weights_folder()
    elif not Path(source).exists():
        _check_hub(source)
    local = Path(folder).exists()
    try:
        with _no_loading_bars() if local else contextlib.nullcontext():
            pipe = StableDiffusionPipeline.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                variant=variant_of(Path(folder)) if local else None,
                local_files_only=local,
                safety_checker=None,
                requires_safety_checker=False,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DuoError(
            f"cannot load the model {source}", got=str(error)[:300], hint="check the folder's files"
        ) from error
    pipe.to(device)
    return StableDiffusion(pipe, family, source)


@contextlib.contextmanager
def _no_loading_bars() -> Iterator[None]:
    """No bars for reading a local folder, which takes a moment. A download keeps its own."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    shown = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()


def _check_hub(source: str) -> None:
    from diffusers import DiffusionPipeline

    try:
        index = DiffusionPipeline.load_config(source)
    except Exception as error:  # the hub's client raises many types; each means the same to the user
        hint = "check the id and the network, or pass a local diffusers folder"
        raise DuoError(f"cannot fetch the model {source} from the hub", got=type(error).__name__, hint=hint) from error
    check_class(source, index)
