"""What others make: an adapter of plain PEFT, and state dicts with other weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from duo_unlearn.families.interface import Model

from .mini import mini, output, weights


def trained_by_peft(folder: Path) -> torch.Tensor:
    """An adapter that plain PEFT trains for two steps, in its own form; gives what the model with it predicts."""
    model = mini()
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["to_q", "to_v"], init_lora_weights="gaussian")
    torch.manual_seed(0)
    wrapped: Any = get_peft_model(model.denoiser, config)
    optimizer = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], lr=0.05)
    noisy, noise = torch.randn(2, 2, 4, 16, 16)
    for _ in range(2):
        loss = (
            (model.predict(noisy, torch.tensor([300, 500]), model.condition(["a", "b"]), wrapped) - noise)
            .square()
            .mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wrapped.save_pretrained(folder)
    return output(model)


def changed(model: Model, part: str, *words: str) -> dict[str, torch.Tensor]:
    """The weights of a part; those with one of the words in their names are others."""
    generator = torch.Generator().manual_seed(0)
    state = {name.removeprefix(f"{part}."): value for name, value in weights(model, part).items()}
    for name, value in state.items():
        if any(word in name for word in words):
            value += 0.1 * torch.randn(value.shape, generator=generator)
    return state
