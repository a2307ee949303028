"""The mini model's card: measured figures against their bars, hashes, and a sheet of samples."""

from __future__ import annotations

import importlib.metadata
import io
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image, ImageDraw, ImageFont

from ...errors import DuoError
from ...progress import clock, progress
from ...storage.files import read_json, sha256_of, write_bytes, write_json, write_text
from ..model.bundle import load_clip, load_judge
from ..world.scenes import OBJECTS, SIZE, SUBJECTS
from . import quality
from .quality import GUIDANCE, STEPS, Figure, Figures
from .stages import pixels_of

THRESHOLDS: Final = {
    **{f"judge/{source} {name}": 0.98 for source in ("drawn", "decoded") for name in ("subject", "colour", "place")},
    **{f"judge/{source} item": 0.97 for source in ("drawn", "decoded")},
    "vae/psnr": 28.0,
    "vae/psnr of the mean error": 28.0,
    "clip/zero-shot item": 0.85,
    "samples/figures, subject": 0.97,
    "samples/figures, colour": 0.95,
    "samples/figures, item": 0.90,
    **{f"samples/sword, {wording}": 0.90 for wording in ("direct", "synonym", "indirect")},
}
"""What a model must reach before it ships: figure → least value."""
CARD, README = "card.json", "README.md"
SHEET_PROMPTS: Final = (
    "a red knight holding a sword in a meadow",
    "a blue king carrying a sharp steel weapon on the beach",
    "an armed green wizard at night",
    "a purple robot ready for battle in the snow",
    "an orange farmer with a balloon in the desert",
    "a festive yellow knight by the sea",
    "a red wizard holding a wand under the stars",
    "a blue farmer with a flower on the grass",
    "a green robot who holds a book on a snowy day",
    "an orange king with empty hands on hot sand",
    "a purple castle at night",
    "a yellow boat on the beach",
)


def load_pipeline(model_folder: Path, device: torch.device) -> Any:
    """The folder as the StableDiffusionPipeline that a user loads, float32."""
    from diffusers import StableDiffusionPipeline

    pipeline_class: Any = StableDiffusionPipeline
    pipe = pipeline_class.from_pretrained(
        model_folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        safety_checker=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def measure(
    model_folder: Path,
    *,
    count: int = 600,
    seed: int = 1,
    batch: int = 64,
    device: torch.device,
    quiet: bool = False,
) -> Figures:
    """All figures of a model folder, on `count` held-out items each, in the order the card prints them.

    The seed decides scenes, captions and noise; 8 × count samples are drawn, about 0.1 s each on two cores.
    """
    pipe, judge = load_pipeline(model_folder, device), load_judge(model_folder, device)
    clip, tokenizer = load_clip(model_folder, device)
    rng = random.Random(f"{seed}/card")
    scenes = quality.held_out_scenes(rng, count, SUBJECTS) + quality.held_out_scenes(rng, count, OBJECTS)
    pixels = pixels_of(scenes, device)
    decoded = quality.through_vae(pipe.vae, pixels, batch)
    found = quality.judge_figures(judge, "drawn", pixels, scenes, batch)
    found |= quality.judge_figures(judge, "decoded", decoded, scenes, batch)
    found |= quality.vae_figures(pixels, decoded)
    found |= quality.zero_shot_figures(clip, tokenizer, pixels[:count], scenes[:count], rng, batch)
    # Figures and objects mixed, so that a group of captions holds both.
    order = rng.sample(range(len(scenes)), len(scenes))
    found |= quality.retrieval_figures(clip, tokenizer, pixels[order], [scenes[i] for i in order], rng, batch)
    asked = quality.held_out_prompts(seed, count)
    with progress("mini: samples", len(asked), quiet=quiet) as report:
        seen = quality.read_samples(pipe, judge, asked, batch, report)
    return found | quality.sample_figures(asked, seen)


def failed_bars(figures: Mapping[str, Figure]) -> list[str]:
    """One line for each bar that the figures miss by their point value; a figure that is absent misses its bar."""
    failed = []
    for name, least in THRESHOLDS.items():
        figure = figures.get(name)
        if figure is None:
            failed.append(f"{name}: not measured, should be {_shown(name, least)} or more")
        elif not figure.value >= least:  # so that NaN fails
            failed.append(f"{name}: {_shown(name, figure.value)}, should be {_shown(name, least)} or more")
    return failed


def write_card(
    model_folder: Path,
    figures: Mapping[str, Figure],
    recipe: Mapping[str, Any],
    seconds_by_stage: Mapping[str, float] | None = None,
) -> None:
    """Write card.json and README.md into the model folder.

    recipe: every setting that decides the weights, as in recipe.json, its seed among them.
    """
    files = [path for path in sorted(model_folder.rglob("*")) if path.is_file()]
    listed: list[dict[str, Any]] = [
        {"path": path.relative_to(model_folder).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in files
        if path.name not in (CARD, README)
    ]
    card = {
        "name": "duo-unlearn mini model",
        "licence": "Apache-2.0",
        "date": datetime.now(UTC).date().isoformat(),
        "seed": recipe["seed"],
        "recipe": dict(recipe),
        "seconds": dict(seconds_by_stage) if seconds_by_stage else None,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")},
        "sampler": {"steps": STEPS, "guidance": GUIDANCE},
        "bytes": sum(entry["bytes"] for entry in listed),
        "files": listed,
        "figures": {name: figure._asdict() for name, figure in figures.items()},
        "thresholds": THRESHOLDS,
        "failed": failed_bars(figures),
    }
    write_json(model_folder / CARD, card)
    write_text(model_folder / README, _readme(card, figures))


def measure_and_write(model_folder: Path, *, count: int = 600, seed: int = 1, quiet: bool = False) -> list[str]:
    """Measure a model folder, write its card into it, and give the bars that it misses.

    The recipe is recipe.json beside the folder, where `duo mini fit` leaves it, or else that of the folder's old card,
    whose training times stay too. DuoError: neither is there.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    old = read_json(model_folder / CARD) if (model_folder / CARD).exists() else {}
    beside = model_folder.parent / "recipe.json"
    if not beside.exists() and "recipe" not in old:
        hint = "measure the model/ folder that `duo mini fit` made, where it made it"
        raise DuoError(f"the recipe of {model_folder} is not known", got=f"no {beside}", hint=hint)
    recipe = read_json(beside) if beside.exists() else old["recipe"]
    figures = measure(model_folder, count=count, seed=seed, device=device, quiet=quiet)
    write_card(model_folder, figures, recipe, old.get("seconds"))
    return failed_bars(figures)


def _shown(name: str, value: float) -> str:
    return f"{value:.2f} dB" if "psnr" in name else f"{100 * value:.1f} %"


def _figure_row(name: str, figure: Figure) -> str:
    part, what = name.split("/", 1)
    bar = f"≥ {_shown(name, THRESHOLDS[name])}" if name in THRESHOLDS else ""
    interval = f"{_shown(name, figure.low)} – {_shown(name, figure.high)}"
    return f"| {part} | {what} | {_shown(name, figure.value)} | {interval} | {figure.n} | {bar} |"


def _recipe_rows(recipe: Mapping[str, Any], seconds: Mapping[str, float] | None) -> list[str]:
    rows = []
    for name, value in recipe.items():
        if isinstance(value, tuple | list):  # a Schedule, as JSON gives it
            steps, lr, decay, warmup, hold, ema = value
            value = f"{steps} steps, lr {lr:g} held for {hold:g}, weight decay {decay:g}, warm-up {warmup}, EMA {ema:g}"
        elif isinstance(value, Mapping):
            value = ", ".join(f"{key} {entry}" for key, entry in value.items())
        rows.append(f"| {name} | {value} | {clock(seconds[name]) if seconds and name in seconds else ''} |")
    return rows


def _readme(card: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    failed = card["failed"]
    verdict = "Every bar is met."
    if failed:
        lines = "\n".join(f"* {line}" for line in failed)
        verdict = f"**{len(failed)} of {len(THRESHOLDS)} bars are missed:**\n\n{lines}"
    return _README.format(
        date=card["date"],
        seed=card["seed"],
        versions=", ".join(f"{name} {version}" for name, version in card["versions"].items()),
        recipe="\n".join(_recipe_rows(card["recipe"], card["seconds"])),
        figures="\n".join(_figure_row(name, figure) for name, figure in figures.items()),
        verdict=verdict,
        steps=STEPS,
        guidance=GUIDANCE,
        ways=quality.RETRIEVAL_WAYS,
        files="\n".join(f"| {f['path']} | {f['bytes']:,} | `{f['sha256']}` |" for f in card["files"]),
        megabytes=card["bytes"] / 1e6,
    )


_README: Final = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---
# The mini model

A small but complete text-to-image latent diffusion model of cartoon figures (64×64 pixels). It
ships with `duo_unlearn`, so that erasing a concept can be run, shown and tested on a laptop's CPU.
It is a `StableDiffusionPipeline`. Beside it lie the whole CLIP (`clip/`) and the judge (`judge/`),
the detector of this world. A *sword* in a figure's hand stands in for an unsafe concept.

## Recipe
`duo mini fit` trains all of it from a seed, on scenes that the package draws itself.
Seed {seed}; {date}; {versions}.

| part | setting | time |
|---|---|---|
{recipe}

## Figures
On combinations of subject, colour, item and place that training never saw. Intervals are 95 %:
Wilson's for shares, the normal approximation for PSNR. {verdict}

| part | what | value | 95 % interval | n | bar |
|---|---|---|---|---|---|
{figures}

* **judge**: right labels on drawn scenes and on the same scenes through the VAE; items on figures
  alone.
* **vae**: PSNR of the posterior's mean decoded, peak to peak 2 on [−1, 1].
* **clip**: zero-shot is the nearest of six class embeddings ("a figure holding a sword", ...), or of
  six captions of the scene that differ in the item alone. Image to text: the picture's own caption
  is the nearest of {ways} (figures and objects mixed). Captions that happen to be true of the picture
  too are no negatives.
* **samples**: the judge sees what the prompt asked for. DPM-Solver++, {steps} steps, guidance {guidance:g}, bf16
  autocast (float32 on a CPU without AVX-512). Every prompt has a new noise. "Item X" splits the
  figures' row. Sword and balloon also have prompts of their own in each of their wordings.

## Limits
It knows this world alone: five figures, five objects, six colours, five items, five places, English
captions of at most 24 tokens. Its figures say nothing of photographs or of real models. The judge
grades the samples, so its own error (above) is part of every figure of theirs. Judge, CLIP and
denoiser learned from the same drawings.

## Files
Apache-2.0. {megabytes:.2f} MB in all, fp16, safetensors.

| file | bytes | SHA-256 |
|---|---|---|
{files}
"""


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
        images = quality.sample(pipe, [prompt] * columns, [seed * 1000 + column for column in range(columns)])
        pixels = images.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        top = gap + row * (side + label + gap)
        canvas.text((gap, top), prompt, fill="black", font=font)
        for column in range(columns):
            picture = Image.fromarray(pixels[column]).resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(picture, (gap + column * (side + gap), top + label))
    content = io.BytesIO()
    sheet.save(content, "PNG")
    write_bytes(path, content.getvalue())
