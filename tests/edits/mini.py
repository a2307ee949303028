"""What the tests of edits share: the mini model, one prompt, and bytes of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from duo_unlearn.families.interface import Model, SampleRequest
from duo_unlearn.families.load import load_model

CPU = torch.device("cpu")
REQUEST = SampleRequest("a red knight holding a sword in the snow", 7)


def mini() -> Model:
    return load_model("mini", CPU)


def pixels(model: Model) -> np.ndarray:
    return np.asarray(model.sample([REQUEST], steps=2, guidance=4.0, batch=1)[0]).astype(int)


def output(model: Model) -> torch.Tensor:
    """The denoiser's prediction for the prompt, which is quicker than an image and exact."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, 4, 16, 16, generator=generator)
    with torch.no_grad():
        return model.predict(noisy, torch.tensor([400]), model.condition([str(REQUEST.words)]))


def weights(model: Model, *parts: str) -> dict[str, torch.Tensor]:
    """Copies of the parameters of some parts, adapters not among them, under their plain names."""
    found: dict[str, torch.Tensor] = {}
    for part in parts or model.kind.parts:
        module: Any = getattr(model.pipe, part)
        for name, value in module.named_parameters():
            if "lora_" not in name:
                found[f"{part}.{name.replace('.base_layer', '')}"] = value.detach().clone()
    return found


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether the same names have the same bits."""
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
