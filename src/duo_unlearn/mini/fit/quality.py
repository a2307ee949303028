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
from torch import Tensor, nn

from ...interval import mean_interval, wilson
from ..model.judge_net import attribute_ids, item_marks, items_shown, probabilities
from ..model.parts import token_ids
from ..world.captions import Wording, caption
from ..world.english import EMPTY, HOLDING
from ..world.scenes import ATTRIBUTES, ITEMS, Scene, is_held_out, random_pair, random_scene
from ..world.words import lexicon, with_article
from .batches import JUDGED

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

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
    return _held_out(lambda: random_scene(rng, subjects=subjects, items=items), count)


def held_out_pairs(rng: random.Random, count: int) -> list[Scene]:
    """Random scenes of two figures, of held-out combinations."""
    return _held_out(lambda: random_pair(rng), count)


def _held_out(draw: Callable[[], Scene], count: int) -> list[Scene]:
    found: list[Scene] = []
    while len(found) < count:
        scene = draw()
        if is_held_out(scene):
            found.append(scene)
    return found


def _batches(rows: Tensor, batch: int) -> list[Tensor]:
    return [rows[start : start + batch] for start in range(0, len(rows), batch)]


class Reading(NamedTuple):
    """What a judge reads: label indices by attribute, (image,), and which items are shown, (image, item) of bool."""

    labels: dict[str, Tensor]
    items: Tensor

    def right(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        """Whether each attribute is the scene's, (image,) of bool; of the items, whether all and no others are seen."""
        truth = attribute_ids(scenes)
        found = {name: ids == truth[name] for name, ids in self.labels.items()}
        return found | {"item": (self.items == item_marks(scenes).bool()).all(dim=1)}


@torch.no_grad()
def read(judge: nn.Module, pixels: Tensor, batch: int) -> Reading:
    """A judge's reading of pictures in [−1, 1], on the CPU."""
    parts = [probabilities(judge(part)) for part in _batches(pixels, batch)]
    whole = {name: torch.cat([part[name] for part in parts]).cpu() for name in ATTRIBUTES}
    return Reading({name: whole[name].argmax(dim=1) for name in JUDGED}, items_shown(whole["item"]))


def judge_figures(name: str, source: str, reading: Reading, scenes: list[Scene]) -> Figures:
    """A judge's accuracy in each attribute; that of subject and colour on single figures and objects."""
    right = reading.right(scenes)
    alone = torch.tensor([scene.other is None for scene in scenes])
    whole = {what: share(right[what]) for what in ("item", "place", "state")}
    single = {what: share(right[what][alone]) for what in ("subject", "colour")}
    return {f"{name}/{source} {what}": figure for what, figure in (whole | single).items()}


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
    figure = with_article(lexicon()["english"]["figure"])
    if item == "none":
        return [f"{figure} {words}".strip() for words in EMPTY]
    named = with_article(item)
    return [*(f"{figure} {verb} {named}" for verb in HOLDING), f"{named} in the hand of {figure}"]


def item_captions(scene: Scene, rng: random.Random) -> list[str]:
    """Full captions of a figure's scene that differ in the item alone, in the order of ITEMS."""
    figure = with_article(f"{scene.colour} {scene.subject}")
    where, verb = rng.choice(lexicon()["english"]["places"][scene.place]), rng.choice(HOLDING)
    held = [f"{verb} {with_article(item)}" if item != "none" else "with empty hands" for item in ITEMS]
    return [f"{figure} {words} {where}" for words in held]


def zero_shot_figures(
    clip: CLIPModel, tokenizer: CLIPTokenizer, pixels: Tensor, scenes: list[Scene], rng: random.Random, batch: int
) -> Figures:
    """Item accuracy of figures by the nearest text: of ten classes, and of ten captions that differ in the item."""
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
    clip: CLIPModel,
    tokenizer: CLIPTokenizer,
    pixels: Tensor,
    scenes: list[Scene],
    rng: random.Random,
    batch: int,
    wording: Wording | None = None,
) -> Figures:
    """How often a picture's own caption is the nearest of RETRIEVAL_WAYS.

    Captions of other pictures that are true of this one too are no negatives. A last group that is not full is
    left out, unless it is the only one.
    """
    images = embed_images(clip, pixels, batch).cpu()
    captions = [caption(scene, rng, wording=wording) for scene in scenes]
    texts = embed_texts(clip, tokenizer, [c.text for c in captions], batch).cpu()
    ways = min(RETRIEVAL_WAYS, len(scenes))
    right = []
    for start in range(0, len(scenes) - ways + 1, ways):
        group = slice(start, start + ways)
        also_true = torch.tensor([[c.fits(scene) for c in captions[group]] for scene in scenes[group]])
        also_true.fill_diagonal_(False)
        nearness = (images[group] @ texts[group].T).masked_fill(also_true, -2.0)
        right.append(nearness.argmax(dim=1) == torch.arange(ways))
    words = f", {wording}" if wording else ""
    return {f"clip/image to text{words}, best of {ways}": share(torch.cat(right))}
