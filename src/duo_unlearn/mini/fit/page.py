"""The mini model's card as a page: recipe, figures and files in tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...progress import clock
from .bars import THRESHOLDS, shown
from .quality import RETRIEVAL_WAYS, Figure
from .sampling import GUIDANCE, STEPS


def _figure_row(name: str, figure: Figure) -> str:
    part, what = name.split("/", 1)
    bar = f"≥ {shown(name, THRESHOLDS[name])}" if name in THRESHOLDS else ""
    interval = f"{shown(name, figure.low)} – {shown(name, figure.high)}"
    return f"| {part} | {what} | {shown(name, figure.value)} | {interval} | {figure.n} | {bar} |"


def _recipe_rows(recipe: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    rows = []
    for name, value in recipe.items():
        if isinstance(value, tuple | list):  # a Schedule, as JSON gives it
            steps, lr, decay, warmup, hold, ema = value
            value = f"{steps} steps, lr {lr:g} held for {hold:g}, weight decay {decay:g}, warm-up {warmup}, EMA {ema:g}"
        elif isinstance(value, Mapping):
            value = ", ".join(f"{key} {entry}" for key, entry in value.items())
        stage = (stages or {}).get(name)
        rows.append(f"| {name} | {value} | {clock(stage['seconds']) + ', ' + stage['machine'] if stage else ''} |")
    return rows


def readme(card: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    """The page of a card, Markdown with the front matter of model hubs."""
    failed = card["failed"]
    verdict = "Every bar is met."
    if failed:
        lines = "\n".join(f"* {line}" for line in failed)
        verdict = f"**{len(failed)} of {len(THRESHOLDS)} bars are missed:**\n\n{lines}"
    return _README.format(
        date=card["date"],
        seed=card["seed"],
        versions=", ".join(f"{name} {version}" for name, version in card["versions"].items()),
        recipe="\n".join(_recipe_rows(card["recipe"], card["stages"])),
        figures="\n".join(_figure_row(name, figure) for name, figure in figures.items()),
        verdict=verdict,
        steps=STEPS,
        guidance=GUIDANCE,
        ways=RETRIEVAL_WAYS,
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
It is a `StableDiffusionPipeline`. Beside it lie the whole CLIP (`clip/`) and two judges: A (`judge/`),
the detector that gates pairs and that searches ask, and B (`judge_b/`), which only scores. A *sword*
stands in for an unsafe concept.

## Recipe
`duo mini fit` trains all of it from a seed, on scenes that the package draws itself.
Seed {seed}; {date}; {versions}.

| part | setting | time, machine |
|---|---|---|
{recipe}

## Figures
On combinations of subject, colour, item and place that training never saw. Intervals are 95 %:
Wilson's for shares, the normal approximation for PSNR. {verdict}

| part | what | value | 95 % interval | n | bar |
|---|---|---|---|---|---|
{figures}

* **judge**, **judge_b**: right labels on drawn scenes, on the same scenes through the VAE, on the same
  damaged mildly, and on the model's samples by what was asked, so an error of the model counts as one
  of the judge there. Items: all that are to be seen and no others. Subject and colour: of single
  figures and objects. Broken: pictures in which nothing can be recognised, found out as such.
* **vae**: PSNR of the posterior's mean decoded, peak to peak 2 on [−1, 1].
* **clip**: zero-shot is the nearest of ten class embeddings ("a figure holding a sword", ...), or of
  ten captions of the scene that differ in the item alone. Image to text: the picture's own caption
  is the nearest of {ways} (figures, objects and pairs mixed; in any wording, or in one language).
  Captions that happen to be true of the picture too are no negatives.
* **samples**: judge B sees what the prompt asked for. DPM-Solver++, {steps} steps, guidance {guidance:g}, bf16
  autocast (float32 on a CPU without AVX-512). Every prompt has a new noise. "Item X" splits the
  figures' row. Sword and balloon also have prompts of their own in each of their wordings. Implicit:
  a pirate, a guard or a duel of whom nothing more is said; 80 % of such training pictures have a
  sword. Negation: "without a sword" and the like shows no item.

## Limits
It knows this world alone: seven figures, six objects, six colours, nine items, five places, captions
in English, German and Spanish of at most 40 tokens. Its figures say nothing of photographs or of real
models. A judge grades the samples, so its own error (above) is part of every figure of theirs. Judges,
CLIP and denoiser learned from the same kind of drawings.

## Files
Apache-2.0. {megabytes:.2f} MB in all, fp16, safetensors.

| file | bytes | SHA-256 |
|---|---|---|
{files}
"""
