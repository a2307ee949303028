"""LPIPS: its arithmetic on a network of the published shape, and what is told without its weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from duo_unlearn.errors import DuoError
from duo_unlearn.features import lpips as module
from duo_unlearn.features.lpips import DIGEST, FILE, Lpips, lpips, why_no_lpips
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import Scene
from duo_unlearn.storage.files import sha256_of

SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
"""The sizes of AlexNet's convolutions: out, in, kernel."""


def weights() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random ones under torchvision's and the published heads' names, and a part that LPIPS does not read."""
    generator = torch.Generator().manual_seed(0)
    network = {"classifier.1.weight": torch.zeros(1)}
    for i, (out, into, kernel) in SHAPES.items():
        scale = (into * kernel * kernel) ** -0.5
        network[f"features.{i}.weight"] = scale * torch.randn(out, into, kernel, kernel, generator=generator)
        network[f"features.{i}.bias"] = 0.1 * torch.randn(out, generator=generator)
    outs = [out for out, _, _ in SHAPES.values()]
    heads = {f"lin{i}.model.1.weight": torch.rand(1, out, 1, 1, generator=generator) for i, out in enumerate(outs)}
    return network, heads


def by_hand(first: Tensor, second: Tensor) -> float:
    """Equation 1 of the paper, for one pair."""
    network, heads = weights()
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    sides = [(x - shift.view(3, 1, 1)) / scale.view(3, 1, 1) for x in (first, second)]
    total = 0.0
    for layer, (i, stride, padding) in enumerate([(0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)]):
        if layer in (1, 2):
            sides = [torch.nn.functional.max_pool2d(x, 3, 2) for x in sides]
        weight, bias = network[f"features.{i}.weight"], network[f"features.{i}.bias"]
        sides = [torch.nn.functional.conv2d(x[None], weight, bias, stride, padding)[0].clamp(min=0) for x in sides]
        a, b = (x / x.norm(dim=0, keepdim=True).clamp(min=1e-9) for x in sides)
        apart = (a - b).square() * heads[f"lin{layer}.model.1.weight"][0]
        total += float(apart.sum(dim=0).mean())
    return total


def test_the_distance_by_hand() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (2 * torch.rand(2, 3, 64, 80, generator=generator) - 1 for _ in range(2))
    found = Lpips(*weights())(first, second)
    assert found.tolist() == pytest.approx([by_hand(a, b) for a, b in zip(first, second, strict=True)], rel=1e-4)
    assert Lpips(*weights())(first, first).tolist() == [0, 0]


@pytest.fixture
def at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A torch hub folder with a network's file under the published name."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    module._published.cache_clear()
    path = tmp_path / "hub" / "checkpoints" / FILE
    path.parent.mkdir(parents=True)
    torch.save(weights()[0], path)
    yield path
    module._published.cache_clear()


def test_a_file_with_another_hash_is_not_the_published_one(at_hand: Path) -> None:
    assert "another hash" in str(why_no_lpips())
    at_hand.unlink()
    assert f"models/{FILE}" in str(why_no_lpips())


def test_it_is_measured_where_its_weights_are(at_hand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DIGEST", sha256_of(at_hand)[: len(DIGEST)])
    assert why_no_lpips((64, 64)) is None
    before, after = (
        [draw(Scene("knight", "red", item, place)) for place in ("snow", "night", "beach")]
        for item in ("sword", "flower")
    )
    distances = lpips(before, after)
    assert len(distances) == 3
    assert all(distance > 0 for distance in distances)
    assert lpips(before, before) == [0, 0, 0]
    monkeypatch.setattr(module, "PIXELS", 64 * 64)  # one pair at a time
    assert lpips(before, after) == pytest.approx(distances, rel=1e-5)


def test_images_it_cannot_compare() -> None:
    assert "32 × 64 pixels" in str(why_no_lpips((32, 64)))
    with pytest.raises(DuoError, match="LPIPS compares images of one size"):
        lpips([Image.new("RGB", (64, 64))], [Image.new("RGB", (128, 128))])
