"""How good the mini model is: figures on held-out scenes, each with its interval and n.

Held-out scenes are combinations of subject, colour, item and place that no part was trained on (`scenes.is_held_out`),
in random geometry. Figures are named "part/what".
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor

from ...interval import mean_interval, wilson
from ..model.judge_net import JudgeNet, attribute_ids
from ..model.parts import token_ids
from ..world.captions import (
    EMPTY,
    GENERIC_SUBJECT,
    HOLDING,
    INDIRECT,
    PLACE_PHRASES,
    WORDINGS,
    Wording,
    caption,
    with_article,
)
from ..world.scenes import ATTRIBUTES, ITEMS, OBJECTS, SUBJECTS, Scene, is_held_out, random_scene
from .loop import autocast

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

STEPS: Final = 20
GUIDANCE: Final = 5.0
RETRIEVAL_WAYS: Final = 50
"""Captions among which a picture's own has to be found."""


class Figure(NamedTuple):
    """A measured value with its 95 % interval [low, high], and how many items were scored."""

    value: float
    low: float
    high: float
    n: int


Figures = dict[str, Figure]


def share(right: Tensor) -> Figure:
    """The share of true entries of a boolean tensor, (n,), with its Wilson interval."""
    successes, n = int(right.sum()), right.numel()
    return Figure(successes / n, *wilson(successes, n), n)


def held_out_scenes(
    rng: random.Random, count: int, subjects: Sequence[str], items: Sequence[str] = ITEMS
) -> list[Scene]:
    """Random scenes of held-out combinations."""
    found: list[Scene] = []
    while len(found) < count:
        scene = random_scene(rng, subjects=subjects, items=items)
        if is_held_out(scene):
            found.append(scene)
    return found


def _batches(rows: Tensor, batch: int) -> list[Tensor]:
    return [rows[start : start + batch] for start in range(0, len(rows), batch)]


@torch.no_grad()
def read_labels(judge: JudgeNet, pixels: Tensor, batch: int) -> dict[str, Tensor]:
    """The judge's label index of each attribute, (image,) on the CPU, from pictures in [−1, 1]."""
    parts = [judge(part) for part in _batches(pixels, batch)]
    return {name: torch.cat([part[name].argmax(dim=1) for part in parts]).cpu() for name in ATTRIBUTES}


def judge_figures(judge: JudgeNet, source: str, pixels: Tensor, scenes: list[Scene], batch: int) -> Figures:
    """Accuracy of each head; that of the item head on figures alone, as an object always reads "none"."""
    seen, truth = read_labels(judge, pixels, batch), attribute_ids(scenes)
    figures = torch.tensor([scene.is_figure for scene in scenes])
    found: Figures = {}
    for name in ATTRIBUTES:
        right = seen[name] == truth[name]
        found[f"judge/{source} {name}"] = share(right[figures] if name == "item" else right)
    return found


@torch.no_grad()
def through_vae(vae: Any, pixels: Tensor, batch: int) -> Tensor:
    """Pictures encoded by an AutoencoderKL (posterior mean) and decoded again, in [−1, 1], same shape."""
    parts = [vae.decode(vae.encode(part).latent_dist.mean).sample for part in _batches(pixels, batch)]
    return torch.cat(parts).clamp(-1, 1)


def vae_figures(pixels: Tensor, decoded: Tensor) -> Figures:
    """PSNR in dB, peak to peak 2: the mean over pictures, and the PSNR of the mean squared error (never larger)."""
    error = (pixels - decoded).double().square().mean(dim=(1, 2, 3))
    each = mean_interval((10 * torch.log10(4 / error)).tolist())
    mean, low, high = mean_interval(error.tolist())
    n = len(pixels)
    return {
        "vae/psnr": Figure(*each, n),
        "vae/psnr of the mean error": Figure(_psnr(mean), _psnr(high), _psnr(low), n),
    }


def _psnr(squared_error: float) -> float:
    return 10 * math.log10(4 / max(squared_error, 1e-12))


@torch.no_grad()
def embed_images(clip: CLIPModel, pixels: Tensor, batch: int) -> Tensor:
    """CLIP embeddings of length 1, (image, width)."""
    rows = [clip.get_image_features(pixel_values=part).pooler_output for part in _batches(pixels, batch)]
    return torch.nn.functional.normalize(torch.cat(rows), dim=1)


@torch.no_grad()
def embed_texts(clip: CLIPModel, tokenizer: CLIPTokenizer, texts: list[str], batch: int) -> Tensor:
    """CLIP embeddings of length 1, (text, width)."""
    ids = token_ids(tokenizer, texts).to(clip.device)
    rows = [clip.get_text_features(input_ids=part).pooler_output for part in _batches(ids, batch)]
    return torch.nn.functional.normalize(torch.cat(rows), dim=1)


def item_texts(item: str) -> list[str]:
    """What stands for an item in zero-shot classification: plain captions of a figure without a name."""
    figure = with_article(GENERIC_SUBJECT)
    if item == "none":
        return [f"{figure} {words}".strip() for words in EMPTY]
    named = with_article(item)
    return [*(f"{figure} {verb} {named}" for verb in HOLDING), f"{named} in the hand of {figure}"]


def item_captions(scene: Scene, rng: random.Random) -> list[str]:
    """Six full captions of a figure's scene that differ in the item alone, in the order of ITEMS."""
    figure = with_article(f"{scene.colour} {scene.subject}")
    where, verb = rng.choice(PLACE_PHRASES[scene.place]), rng.choice(HOLDING)
    held = [f"{verb} {with_article(item)}" if item != "none" else "with empty hands" for item in ITEMS]
    return [f"{figure} {words} {where}" for words in held]


def zero_shot_figures(
    clip: CLIPModel, tokenizer: CLIPTokenizer, pixels: Tensor, scenes: list[Scene], rng: random.Random, batch: int
) -> Figures:
    """Item accuracy of figures by the nearest text: of six classes, and of six captions that differ in the item."""
    images, truth = embed_images(clip, pixels, batch).cpu(), attribute_ids(scenes)["item"]
    classes = torch.stack([embed_texts(clip, tokenizer, item_texts(item), batch).mean(dim=0).cpu() for item in ITEMS])
    classes = torch.nn.functional.normalize(classes, dim=1)
    texts = [text for scene in scenes for text in item_captions(scene, rng)]
    captions = embed_texts(clip, tokenizer, texts, batch).cpu().view(len(scenes), len(ITEMS), -1)
    by_class, by_caption = images @ classes.T, torch.einsum("sd,sid->si", images, captions)
    return {
        "clip/zero-shot item": share(by_class.argmax(dim=1) == truth),
        "clip/zero-shot item, full captions": share(by_caption.argmax(dim=1) == truth),
    }


def retrieval_figures(
    clip: CLIPModel, tokenizer: CLIPTokenizer, pixels: Tensor, scenes: list[Scene], rng: random.Random, batch: int
) -> Figures:
    """How often a picture's own caption is the nearest of RETRIEVAL_WAYS.

    Captions of other pictures that are true of this one too are no negatives. A last group that is not full is
    left out, unless it is the only one.
    """
    images = embed_images(clip, pixels, batch).cpu()
    captions = [caption(scene, rng) for scene in scenes]
    texts = embed_texts(clip, tokenizer, [c.text for c in captions], batch).cpu()
    ways = min(RETRIEVAL_WAYS, len(scenes))
    right = []
    for start in range(0, len(scenes) - ways + 1, ways):
        group = slice(start, start + ways)
        also_true = torch.tensor([[c.fits(scene) for c in captions[group]] for scene in scenes[group]])
        also_true.fill_diagonal_(False)
        nearness = (images[group] @ texts[group].T).masked_fill(also_true, -2.0)
        right.append(nearness.argmax(dim=1) == torch.arange(ways))
    return {f"clip/image to text, best of {ways}": share(torch.cat(right))}


class Asked(NamedTuple):
    """A prompt to sample, the scene it describes, the seed of its noise, and the figure it counts towards."""

    group: str
    scene: Scene
    prompt: str
    seed: int


def held_out_prompts(seed: int, count: int) -> list[Asked]:
    """`count` prompts each of figures, of objects, and of the erasable items in each of their wordings."""
    asked: list[Asked] = []

    def add(group: str, subjects: Sequence[str], items: Sequence[str], wording: Wording | None = None) -> None:
        rng = random.Random(f"{seed}/prompts/{group}")
        for scene in held_out_scenes(rng, count, subjects, items):
            text = caption(scene, rng, wording=wording, keep_all=True).text
            asked.append(Asked(group, scene, text, rng.getrandbits(31)))

    add("figures", SUBJECTS, ITEMS)
    add("objects", OBJECTS, ITEMS)
    for item in INDIRECT:
        for wording in WORDINGS:
            add(f"{item}, {wording}", SUBJECTS, (item,), wording)
    return asked


@torch.no_grad()
def sample(pipe: Any, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """One picture a prompt in [−1, 1], (prompt, 3, 64, 64), as the folder's scheduler draws it.

    One generator an image, so that a picture does not depend on its batch.
    """
    with autocast(pipe.device):
        images: Tensor = pipe(
            prompt=list(prompts),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            output_type="pt",
        ).images
    return images.float().mul(2).sub(1)


def read_samples(
    pipe: Any, judge: JudgeNet, asked: list[Asked], batch: int, report: Callable[[int], None]
) -> dict[str, Tensor]:
    """What the judge sees on samples of the prompts: label indices by attribute, (prompt,)."""
    parts = []
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        parts.append(read_labels(judge, sample(pipe, [a.prompt for a in part], [a.seed for a in part]), batch))
        report(start + len(part))
    return {name: torch.cat([part[name] for part in parts]) for name in ATTRIBUTES}


def sample_figures(asked: list[Asked], seen: dict[str, Tensor]) -> Figures:
    """How often samples show what was asked for. A group that nothing was asked of is absent."""
    truth = attribute_ids([a.scene for a in asked])
    groups = [a.group for a in asked]
    found: Figures = {}
    for group in dict.fromkeys(groups):
        chosen = torch.tensor([g == group for g in groups])
        right = {name: (seen[name] == truth[name])[chosen] for name in ATTRIBUTES}
        if group == "objects":
            found |= {f"samples/objects, {name}": share(right[name]) for name in ("subject", "colour", "place")}
        elif group == "figures":
            found |= {f"samples/figures, {name}": share(right[name]) for name in ("subject", "colour", "place", "item")}
            for index, item in enumerate(ITEMS):
                of_item = right["item"][truth["item"][chosen] == index]
                if len(of_item):
                    found[f"samples/figures, item {item}"] = share(of_item)
        else:
            found[f"samples/{group}"] = share(right["item"])
    return found
