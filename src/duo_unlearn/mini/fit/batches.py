"""What each stage of `duo mini fit` is shown: scenes, captions and pictures of one step, as tensors on the CPU."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor

from ..model.judge_net import attribute_ids, item_marks
from ..model.parts import token_ids
from ..world.captions import Caption, caption
from ..world.drawing import draw_batch
from ..world.scenes import (
    ATTRIBUTES,
    CARRIERS,
    ITEMS,
    MOUNTS,
    OBJECTS,
    SUBJECTS,
    Scene,
    is_held_out,
    random_look,
    random_pair,
    random_scene,
)
from .damage import Damage, half_formed, mild, ruined, to_pixels
from .feed import Draw, Make

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

# Empty hands, sword and balloon twice as often as chance: an eraser can only be shown on what the model draws well.
_ITEMS: Final = (*ITEMS, "none", "sword", "balloon")
# Swords twice as frequent as empty hands in a carrier's: see captions.UNSAID.
_CARRIED: Final = (*_ITEMS, "sword", "sword")
SHARES: Final = {"figure": 0.60, "object": 0.14, "pair": 0.20, "duel": 0.06}
"""Of what the scenes of training are."""
LATENT: Final = (4, 16, 16)
STATED: Final = ("item", "subject", "colour", "place")
"""The attributes that a caption may state."""


def pixels_of(scenes: list[Scene], device: torch.device) -> Tensor:
    """Pictures in [−1, 1], (scene, 3, 64, 64)."""
    return to_pixels(torch.from_numpy(draw_batch(scenes))).to(device)


def training_scene(rng: random.Random, kind: str | None = None) -> Scene:
    """A random scene outside the held-out combinations. kind: a key of SHARES; None: any, by its share."""
    kind = kind or rng.choices(list(SHARES), list(SHARES.values()))[0]
    while True:
        if kind == "figure":
            subject = rng.choice(SUBJECTS)
            scene = random_scene(rng, subjects=(subject,), items=_CARRIED if subject in CARRIERS else _ITEMS)
        elif kind == "object":
            scene = random_scene(rng, subjects=OBJECTS)
        else:
            scene = random_pair(rng, items=_ITEMS, duel=kind == "duel")
        if not is_held_out(scene):
            return scene


def training_scenes(rng: random.Random, count: int, kind: str | None = None) -> list[Scene]:
    """`count` of training_scene's."""
    return [training_scene(rng, kind) for _ in range(count)]


def hard_batch(rng: random.Random, figures: int, pairs: int, others: int) -> list[Scene]:
    """Figures, each with every item that training may see in that scene; two figures, with their items exchanged too.

    Pictures of one figure differ in the held item alone, and those of two in who holds which, so that is what tells
    them apart. others: as many more scenes of any kind.
    """
    scenes: list[Scene] = []
    for _ in range(figures):
        base = random_scene(rng)
        versions = [base.counterpart(item, random_look(rng, item)) for item in ITEMS]
        scenes += [scene for scene in versions if not is_held_out(scene)]
    for _ in range(pairs):
        base = training_scene(rng, "pair")
        assert base.other is not None
        other = dataclasses.replace(base.other, item=base.item, look=base.look)
        exchanged = dataclasses.replace(base, item=base.other.item, look=base.other.look, other=other)
        scenes += [base] if is_held_out(exchanged) else [base, exchanged]
    return scenes + training_scenes(rng, 10 * figures + 2 * pairs + others - len(scenes))


class ClipBatch(NamedTuple):
    """pictures: uint8, (scene, 64, 64, 3); ids: (scene, token); also_true: whether caption i fits scene j ≠ i too.

    truth and said: label indices, (scene, attribute of STATED), −100 where it is none: of a picture with two figures;
    what a caption does not say has an index of its own, one past the labels.
    """

    pictures: Tensor
    ids: Tensor
    also_true: Tensor
    truth: Tensor
    said: Tensor


def clip_batches(tokenizer: CLIPTokenizer, figures: int = 12, pairs: int = 14, others: int = 24) -> Make:
    """Hard batches with their captions."""

    def make(draw: Draw) -> ClipBatch:
        scenes = hard_batch(draw.rng, figures, pairs, others)
        captions = [caption(scene, draw.rng) for scene in scenes]
        also_true = torch.tensor([[c.fits(s) for s in scenes] for c in captions])
        also_true.fill_diagonal_(False)
        ids = attribute_ids(scenes)
        truth = torch.stack([ids[name] for name in STATED], dim=1)
        said = torch.stack([_said(captions, name) for name in STATED], dim=1)
        two = torch.tensor([scene.other is not None for scene in scenes])
        truth[two], said[two] = -100, -100
        pictures = torch.from_numpy(draw_batch(scenes))
        return ClipBatch(pictures, token_ids(tokenizer, [c.text for c in captions]), also_true, truth, said)

    return make


def _said(captions: list[Caption], name: str) -> Tensor:
    labels = ATTRIBUTES[name]
    values = [getattr(c, name) for c in captions]
    return torch.tensor([labels.index(v) if v in labels else len(labels) for v in values])


class VaeBatch(NamedTuple):
    """pictures: uint8, (scene, 64, 64, 3); noise: of the posterior, (scene, 4, 16, 16)."""

    pictures: Tensor
    noise: Tensor


def vae_batches(batch: int = 32) -> Make:
    """Pictures of training scenes."""

    def make(draw: Draw) -> VaeBatch:
        pictures = torch.from_numpy(draw_batch(training_scenes(draw.rng, batch)))
        return VaeBatch(pictures, torch.randn(batch, *LATENT, generator=draw.generator))

    return make


class UnetBatch(NamedTuple):
    """Rows of the bank of latents, (row,); their captions' ids, (row, token); timesteps, (row,); two kinds of noise.

    posterior: picks a latent from the VAE's distribution; noise: what the denoiser has to find; (row, 4, 16, 16) each.
    """

    chosen: Tensor
    ids: Tensor
    timesteps: Tensor
    posterior: Tensor
    noise: Tensor


def unet_batches(tokenizer: CLIPTokenizer, scenes: list[Scene], batch: int, timesteps: int, empty: float = 0.1) -> Make:
    """Rows of the bank of latents, each with a new caption; one in ten is empty, for guidance."""

    def make(draw: Draw) -> UnetBatch:
        chosen = [draw.rng.randrange(len(scenes)) for _ in range(batch)]
        texts = ["" if draw.rng.random() < empty else caption(scenes[i], draw.rng).text for i in chosen]
        return UnetBatch(
            torch.tensor(chosen),
            token_ids(tokenizer, texts),
            torch.randint(0, timesteps, (batch,), generator=draw.generator),
            torch.randn(batch, *LATENT, generator=draw.generator),
            torch.randn(batch, *LATENT, generator=draw.generator),
        )

    return make


class JudgeBatch(NamedTuple):
    """pixels in [−1, 1], whose first share goes through the VAE; items: (image, item); known: 1 where items are known.

    labels: of the attributes in JUDGED, (image, attribute), −100 for unknown.
    """

    pixels: Tensor
    items: Tensor
    known: Tensor
    labels: Tensor


class Sampled(NamedTuple):
    """Pictures that the model drew, uint8, (image, 64, 64, 3), and the scenes that were asked for."""

    pictures: Tensor
    scenes: list[Scene]


SHARES_OF_A_JUDGE: Final = 8
JUDGED: Final = tuple(name for name in ATTRIBUTES if name != "item")


def without_cue(scenes: list[Scene], rng: random.Random) -> list[Scene]:
    """The same scenes, but a plate or band without its sword in every second empty mount.

    The world draws these with a sword alone, and a judge that reads them would call a sword what holds none.
    """
    return [
        dataclasses.replace(scene, mounting=True)
        if scene.subject in MOUNTS and scene.item == "none" and rng.random() < 0.5
        else scene
        for scene in scenes
    ]


def judge_batches(kind: Damage, sampled: Sampled, batch: int = 128) -> Make:
    """An eighth each: decoded, drawn, drawn and damaged (two), sampled, sampled and damaged, half-formed, broken."""
    part = batch // SHARES_OF_A_JUDGE

    def make(draw: Draw) -> JudgeBatch:
        rng = draw.rng
        drawn = without_cue(training_scenes(rng, 4 * part), rng)
        pixels = to_pixels(torch.from_numpy(draw_batch(drawn)))
        damaged, blind = mild(pixels[2 * part :], kind, draw)
        chosen = rng.sample(range(len(sampled.scenes)), 3 * part)
        samples = to_pixels(sampled.pictures[chosen])
        of_samples = [sampled.scenes[i] for i in chosen]
        rough, rough_blind = mild(samples[part : 2 * part], kind, draw)
        figures = training_scenes(rng, part, "figure")
        half = half_formed(figures, draw)
        ruins = ruined(
            torch.cat([pixels[: part - part // 2], samples[2 * part : 2 * part + part // 2]]),
            pixels[part : 2 * part],
            draw,
        )
        scenes = drawn + of_samples[: 2 * part] + figures
        ids = attribute_ids(scenes)
        labels = torch.stack([ids[name] for name in JUDGED], dim=1)
        items = item_marks(scenes)
        items[6 * part :] = half.items
        colour, state = JUDGED.index("colour"), JUDGED.index("state")
        labels[2 * part : 4 * part, colour][blind] = -100
        labels[5 * part : 6 * part, colour][rough_blind] = -100
        labels[6 * part :, state] = half.broken.long()
        known = torch.ones(len(scenes))
        known[6 * part :][half.broken] = 0
        broken = torch.full((part, len(JUDGED)), -100)
        broken[:, state] = 1
        return JudgeBatch(
            torch.cat([pixels[: 2 * part], damaged, samples[:part], rough, half.pixels, ruins]),
            torch.cat([items, torch.zeros(part, len(ITEMS))]),
            torch.cat([known, torch.zeros(part)]),
            torch.cat([labels, broken]),
        )

    return make
