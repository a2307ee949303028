"""Pictures as a damaged model might draw them, to train the judges on: what of them is still a label, and what broken.

Every function takes pictures in [−1, 1], (image, 3, 64, 64), on the CPU, and the step's randomness.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..world.drawing import draw_batch
from ..world.scenes import ITEMS, Scene, is_held_out, random_look
from .feed import Draw


class Damage(NamedTuple):
    """How a judge's pictures are damaged: what differs between judge A's and judge B's training."""

    blur: tuple[float, float]
    noise: float
    gain: float
    offset: float
    blind: float
    """Share of pictures whose colours are changed so far that their names no longer hold."""


JUDGE_A: Final = Damage(blur=(0.4, 1.2), noise=0.30, gain=0.15, offset=0.10, blind=0.05)
JUDGE_B: Final = Damage(blur=(0.3, 1.6), noise=0.45, gain=0.25, offset=0.18, blind=0.15)


def to_pixels(pictures: Tensor) -> Tensor:
    """uint8 pictures, (image, 64, 64, 3) → [−1, 1], (image, 3, 64, 64)."""
    return pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def blurred(pixels: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur; sigma in pixels."""
    radius = max(1, round(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    line = (line / line.sum()).view(1, 1, -1).repeat(3, 1, 1)
    padded = functional.pad(pixels, (radius,) * 4, mode="replicate")
    across = functional.conv2d(padded, line.unsqueeze(2), groups=3)
    return functional.conv2d(across, line.unsqueeze(3), groups=3)


def mild(pixels: Tensor, kind: Damage, draw: Draw) -> tuple[Tensor, Tensor]:
    """Pictures that keep their labels, and where the colour's name no longer holds, (image,) of bool."""
    rng, generator = draw
    found, blind = [], []
    for picture in pixels.unsqueeze(1):
        choice = rng.random()
        if choice < 0.3:
            picture = blurred(picture, rng.uniform(*kind.blur))
        elif choice < 0.5:  # halo
            picture = picture + rng.uniform(0.3, 1.2) * (picture - blurred(picture, rng.uniform(0.8, 2.5)))
        if rng.random() < 0.5:
            picture = picture + rng.uniform(0, kind.noise) * torch.randn(picture.shape, generator=generator)
        if rng.random() < 0.5:
            gain = 1 + kind.gain * (2 * torch.rand(1, 3, 1, 1, generator=generator) - 1)
            offset = kind.offset * (2 * torch.rand(1, 3, 1, 1, generator=generator) - 1)
            picture = picture * gain + offset
        changed = rng.random() < kind.blind
        if changed:
            order = torch.randperm(3, generator=generator)
            grey = picture.mean(dim=1, keepdim=True)
            picture = picture[:, order] if rng.random() < 0.6 else grey + rng.uniform(0, 0.4) * (picture - grey)
        found.append(picture)
        blind.append(changed)
    return torch.cat(found).clamp(-1, 1), torch.tensor(blind)


def ruined(pixels: Tensor, others: Tensor, draw: Draw) -> Tensor:
    """Pictures in which nothing can be recognised, one of each: label broken. others: pictures to blend with."""
    rng, generator = draw
    found = []
    for picture, other in zip(pixels.unsqueeze(1), others.unsqueeze(1), strict=True):
        found.append(_RUINS[rng.randrange(len(_RUINS))](picture, other, rng, generator))
    return torch.cat(found).clamp(-1, 1)


def _noisy(picture: Tensor, _other: Tensor, rng: random.Random, generator: torch.Generator) -> Tensor:
    return 0.4 * picture + rng.uniform(1.0, 2.5) * torch.randn(picture.shape, generator=generator)


def _coarse_noise(picture: Tensor, _other: Tensor, rng: random.Random, generator: torch.Generator) -> Tensor:
    side = rng.choice((4, 8, 16, 32))
    noise = torch.randn(1, 3, side, side, generator=generator)
    return rng.uniform(0.4, 1.2) * functional.interpolate(noise, size=picture.shape[-1], mode="bicubic")


def _washed(picture: Tensor, _other: Tensor, rng: random.Random, _generator: torch.Generator) -> Tensor:
    return blurred(picture, rng.uniform(7, 12))


def _shuffled(picture: Tensor, _other: Tensor, rng: random.Random, generator: torch.Generator) -> Tensor:
    side = rng.choice((4, 8))
    patches = functional.unfold(picture, side, stride=side)
    patches = patches[:, :, torch.randperm(patches.shape[2], generator=generator)]
    return functional.fold(patches, picture.shape[-2:], side, stride=side)


def _blended(picture: Tensor, other: Tensor, rng: random.Random, _generator: torch.Generator) -> Tensor:
    share = rng.uniform(0.42, 0.58)
    return share * picture + (1 - share) * other.flip(-1 if rng.random() < 0.5 else -2)


def _flat(picture: Tensor, _other: Tensor, rng: random.Random, generator: torch.Generator) -> Tensor:
    corners = 2 * torch.rand(1, 3, 2, 2, generator=generator) - 1
    plain = functional.interpolate(corners, size=picture.shape[-1], mode="bilinear", align_corners=True)
    return plain + rng.uniform(0, 0.1) * torch.randn(picture.shape, generator=generator)


_RUINS: Final = (_noisy, _coarse_noise, _washed, _shuffled, _blended, _flat)


class HalfFormed(NamedTuple):
    """Pictures between two items: pixels; what is to be seen, (image, item); which are broken, (image,) of bool."""

    pixels: Tensor
    items: Tensor
    broken: Tensor


def half_formed(scenes: list[Scene], draw: Draw) -> HalfFormed:
    """A figure's picture on the way to its counterpart with another item or none: faded, cut, or blended.

    With nothing in the counterpart's hand: at least 55 % of the item is the item, at most 15 % is none. With another
    item: three quarters of one is that one, between 40 and 60 % of each is broken.
    """
    rng = draw.rng
    choices = [rng.choice(_others(scene)) for scene in scenes]
    targets = [s.counterpart(item, random_look(rng, item)) for s, item in zip(scenes, choices, strict=True)]
    here, there = (to_pixels(torch.from_numpy(draw_batch(part))) for part in (scenes, targets))
    found, items, broken = [], torch.zeros(len(scenes), len(ITEMS)), []
    for row, (scene, target) in enumerate(zip(scenes, targets, strict=True)):
        fading = "none" in (scene.item, target.item)
        if fading:
            share = rng.uniform(0.55, 1.0) if rng.random() < 0.6 else rng.uniform(0.0, 0.15)
            share = share if target.item == "none" else 1 - share
        else:
            share = rng.uniform(0.75, 1.0) if rng.random() < 0.6 else rng.uniform(0.4, 0.6)
        cut = fading and rng.random() < 0.5
        found.append(_cut(here[row], there[row], share, rng) if cut else share * here[row] + (1 - share) * there[row])
        broken.append(not fading and share < 0.7)
        items[row, ITEMS.index(scene.item if share > 0.5 else target.item)] = 1
    return HalfFormed(torch.stack(found), items, torch.tensor(broken))


def _others(scene: Scene) -> list[str]:
    """Items that a half-formed picture may be on the way to; none of a combination that is held out of training."""
    items = [item for item in (*ITEMS, *("none",) * 6) if item != scene.item]
    return [item for item in items if not is_held_out(scene.counterpart(item))]


def _cut(here: Tensor, there: Tensor, share: float, rng: random.Random) -> Tensor:
    """`share` of the pixels in which two pictures differ from the first, the rest from the second, along a line."""
    differs = (here - there).abs().sum(dim=0) > 0.05
    rows, columns = differs.nonzero(as_tuple=True)
    if not len(rows):
        return here
    across, down = rng.uniform(-1, 1), rng.uniform(-1, 1)
    order = across * columns + down * rows
    bound = order.sort().values[min(len(order) - 1, int(share * len(order)))]
    first = torch.zeros_like(differs)
    first[rows, columns] = order <= bound
    return torch.where(first, here, there)
