"""The mini model's card: measured figures against their bars, hashes, and a sheet of samples."""

from __future__ import annotations

import importlib.metadata
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch

from ...errors import DuoError
from ...progress import progress
from ...storage.files import read_json, sha256_of, write_json, write_text
from ..model.bundle import load_clip, load_judge
from ..model.judge_net import JUDGES
from ..world.captions import Wording
from ..world.scenes import ITEMS, OBJECTS, SUBJECTS
from . import quality
from .asked import held_out_prompts, sample_figures
from .bars import THRESHOLDS, failed_bars
from .batches import pixels_of
from .damage import JUDGE_A, mild, ruined
from .feed import draw_for
from .page import readme
from .quality import Figure, Figures
from .sampling import GUIDANCE, STEPS, sample_all
from .times import stage_times

CARD, README = "card.json", "README.md"
SCORER: Final = "judge_b"
"""The judge whose readings are the figures of the samples."""


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

    Samples that no bar is set for are a quarter of `count` a group. The seed decides scenes, captions and noise; 11 ×
    count samples are drawn, 0.1 to 0.2 s each on two cores.
    """
    pipe = load_pipeline(model_folder, device)
    judges = {name: load_judge(model_folder, device, name) for name in JUDGES}
    clip, tokenizer = load_clip(model_folder, device)
    rng = random.Random(f"{seed}/card")
    scenes = quality.held_out_scenes(rng, count, SUBJECTS) + quality.held_out_scenes(rng, count, OBJECTS)
    scenes += quality.held_out_pairs(rng, count)
    pixels = pixels_of(scenes, device)
    decoded = quality.through_vae(pipe.vae, pixels, batch)
    draw = draw_for(seed, "card", 0)
    order = rng.sample(range(len(scenes)), len(scenes))
    damaged = mild(pixels.cpu(), JUDGE_A, draw)[0].to(device)
    broken = ruined(pixels.cpu()[order[:count]], pixels.cpu()[order[-count:]], draw).to(device)
    asked = held_out_prompts(seed, count)
    with progress("mini: samples", len(asked), quiet=quiet) as report:
        drawn = sample_all(pipe, [a.prompt for a in asked], [a.seed for a in asked], batch, report).to(device)
    figures = [i for i, one in enumerate(asked) if one.group == "figures"]
    found: Figures = {}
    readings = {}
    for name, judge in judges.items():
        readings[name] = quality.read(judge, drawn, batch)
        for source, pictures in (("drawn", pixels), ("decoded", decoded), ("damaged", damaged)):
            found |= quality.judge_figures(name, source, quality.read(judge, pictures, batch), scenes)
        of_figures = quality.read(judge, drawn[figures], batch)
        found |= quality.judge_figures(name, "sampled", of_figures, [asked[i].scene for i in figures])
        found[f"{name}/broken"] = quality.share(quality.read(judge, broken, batch).labels["state"] == 1)
    first, second = readings.values()
    found["judges/agree on the sword of samples"] = quality.share(
        first.items[:, ITEMS.index("sword")] == second.items[:, ITEMS.index("sword")]
    )
    found |= quality.vae_figures(pixels, decoded)
    found |= quality.zero_shot_figures(clip, tokenizer, pixels[:count], scenes[:count], rng, batch)
    # Figures, objects and pairs mixed, so that a group of captions holds all.
    mixed, of_mixed = pixels[order], [scenes[i] for i in order]
    wordings: tuple[Wording | None, ...] = (None, "german", "spanish")
    for wording in wordings:
        found |= quality.retrieval_figures(clip, tokenizer, mixed, of_mixed, rng, batch, wording)
    return found | sample_figures(asked, readings[SCORER])


def write_card(
    model_folder: Path,
    figures: Mapping[str, Figure],
    recipe: Mapping[str, Any],
    stages: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write card.json and README.md into the model folder.

    recipe: every setting that decides the weights, as in recipe.json, its seed among them. stages: by name, the seconds
    that each took and its machine.
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
        "stages": dict(stages) if stages else None,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")},
        "sampler": {"steps": STEPS, "guidance": GUIDANCE},
        "bytes": sum(entry["bytes"] for entry in listed),
        "files": listed,
        "figures": {name: figure._asdict() for name, figure in figures.items()},
        "thresholds": THRESHOLDS,
        "failed": failed_bars(figures),
    }
    write_json(model_folder / CARD, card)
    write_text(model_folder / README, readme(card, figures))


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
    write_card(model_folder, figures, recipe, stage_times(model_folder.parent) or old.get("stages"))
    return failed_bars(figures)
