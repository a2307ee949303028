"""A sheet of samples of a mini model, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from PIL import Image, ImageDraw, ImageFont

from ...storage.pictures import save_png
from ..world.scenes import SIZE
from .card import load_pipeline
from .sampling import sample

SHEET_PROMPTS: Final = (
    "a red knight holding a sword in a meadow",
    "a blue king carrying a sharp steel weapon on the beach",
    "an orange robot with a long steel edge with a hilt at night",
    "a green farmer holding a swrod in the desert",
    "ein roter Zauberer mit einem Schwert im Schnee",
    "un caballero azul con una espada en un prado",
    "an armed green wizard at night",
    "a purple pirate on the beach",
    "a duel between a red knight and a blue king in a meadow",
    "a red knight with a sword and a yellow wizard with a flower in the snow",
    "a purple castle with a sword on its wall at night",
    "an orange farmer with a balloon in the desert",
    "a red guard holding a torch under the stars",
    "a blue farmer with an umbrella on the grass",
    "a green robot with a broom on a snowy day",
    "an orange king with empty hands on hot sand",
)


def sample_sheet(
    model_folder: Path,
    path: Path,
    *,
    prompts: tuple[str, ...] = SHEET_PROMPTS,
    columns: int = 8,
    seed: int = 1,
    device: torch.device,
) -> None:
    """Write a PNG of samples: a row a prompt, its text above it; noise differs by column, not by row."""
    pipe = load_pipeline(model_folder, device)
    gap, label = 4, 18
    side = 2 * SIZE
    size = (gap + columns * (side + gap), gap + len(prompts) * (side + label + gap))
    sheet = Image.new("RGB", size, "white")
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for row, prompt in enumerate(prompts):
        images = sample(pipe, [prompt] * columns, [seed * 1000 + column for column in range(columns)])
        pixels = images.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        top = gap + row * (side + label + gap)
        canvas.text((gap, top), prompt, fill="black", font=font)
        for column in range(columns):
            picture = Image.fromarray(pixels[column]).resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(picture, (gap + column * (side + gap), top + label))
    save_png(sheet, path)
