"""FID, KID and CMMD: the library's numbers, in bounded memory, with intervals that cover; and the feature networks."""

from __future__ import annotations

import gc
import itertools
import math
import random
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance, poly_kernel, poly_mmd

from duo_unlearn.errors import DuoError
from duo_unlearn.features.clip import why_no_clip
from duo_unlearn.features.effnet import EffnetFeatures
from duo_unlearn.metrics.distribution import Cmmd, Distance, Distribution, Fid, Kid
from duo_unlearn.metrics.fidelity import Images, fidelity, reference_pictures
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import SUBJECTS, random_scene
from duo_unlearn.records import Source
from duo_unlearn.settings.check import find_faults

WIDTH = 12


def rows(n: int, seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn((WIDTH, WIDTH), generator=torch.Generator().manual_seed(99))
    return torch.randn((n, WIDTH), generator=generator) @ mix + shift


def split(x: Tensor, size: int = 37) -> list[Tensor]:
    return [x[first : first + size] for first in range(0, len(x), size)]


def between(measure: Distribution, reference: Sequence[Tensor], rows: Sequence[Tensor]) -> Distance | None:
    """A distance of two sets whose batches come side by side."""
    for pair in itertools.zip_longest(reference, rows):
        measure.add(*pair)
    return measure.result()


class Through(torch.nn.Module):
    num_features = WIDTH

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_fid_and_kid_are_the_librarys() -> None:
    x, y = rows(400, 1), rows(400, 2, 0.3)
    whole = FrechetInceptionDistance(feature=Through())
    kernel = KernelInceptionDistance(feature=Through(), subsets=1, subset_size=400)
    for metric in (whole, kernel):
        metric.update(x, real=True)
        metric.update(y, real=False)
    found = between(Fid(), split(x), split(y))
    assert found is not None
    assert found.value == pytest.approx(float(whole.compute()), rel=1e-4)
    assert found.n == 400
    found = between(Kid(), split(x), split(y))
    assert found is not None
    assert found.value == pytest.approx(float(kernel.compute()[0]), rel=1e-4)


def test_sums_by_strips_are_the_whole_kernels() -> None:
    """Value and interval as of the whole kernels with each group left out, to the last digits."""
    x, y = rows(333, 1), rows(333, 2, 0.3)
    group = torch.arange(333) % 5

    def interval(whole: float, without: list[float]) -> tuple[float, float, float]:
        mean = sum(without) / 5
        spread = math.sqrt(4 / 5 * sum((value - mean) ** 2 for value in without))
        return whole, whole - 2.776 * spread, whole + 2.776 * spread

    def paired(a: Tensor, b: Tensor) -> float:
        cross, m = poly_kernel(a, b), len(a)
        more = 2 * cross.sum() / m**2 - 2 * (cross.sum() - cross.trace()) / (m * (m - 1))
        return float(poly_mmd(a, b) + more)

    def gaussian(a: Tensor, b: Tensor) -> float:
        a, b = (torch.nn.functional.normalize(side, dim=1) for side in (a, b))
        kernels = [torch.exp(-(2 - 2 * p @ q.T) / 200).mean() for p, q in ((a, a), (b, b), (a, b))]
        return float(1000 * (kernels[0] + kernels[1] - 2 * kernels[2]))

    ways = ((Kid(), lambda a, b: float(poly_mmd(a, b))), (Kid(paired=True), paired), (Cmmd(), gaussian))
    for measure, distance in ways:
        found = between(measure, split(x), split(y))
        assert found is not None
        a, b = x.double(), y.double()
        expected = interval(distance(a, b), [distance(a[group != i], b[group != i]) for i in range(5)])
        assert found[:3] == pytest.approx(expected, rel=1e-9, abs=1e-11)


def test_the_same_images_twice_are_at_no_distance_pair_by_pair() -> None:
    x = rows(100, 1)
    paired, plain = (between(Kid(paired=flag), [x], [x.clone()]) for flag in (True, False))
    assert paired is not None
    assert plain is not None
    assert paired.value == pytest.approx(0, abs=1e-9 + 1e-9 * float(x.square().mean() ** 3))
    assert plain.value < -10 * abs(paired.value)  # why it is left out
    near = between(Kid(paired=True), [x], [x + 0.5 * rows(100, 3)])
    assert near is not None
    assert near.low <= near.value <= near.high


def test_cmmd_by_hand() -> None:
    x, y = rows(30, 1), rows(30, 2, 0.5)
    a, b = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)

    def mean(p: Tensor, q: Tensor) -> float:
        return sum(float(torch.exp(-(u - v).square().sum() / 200)) for u in p for v in q) / (len(p) * len(q))

    found = between(Cmmd(), [x], [y])
    assert found is not None
    assert found.value == pytest.approx(1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b)), abs=2e-3)


def test_blocks_are_averaged() -> None:
    x, y = rows(120, 1), rows(120, 2, 0.3)
    alone = [between(Kid(), [x[s]], [y[s]]) for s in (slice(0, 50), slice(50, 100), slice(100, 120))]
    found = between(Kid(block=50), split(x), split(y))
    assert found is not None
    values = [one.value for one in alone if one is not None]
    assert found.value == pytest.approx((50 * values[0] + 50 * values[1] + 20 * values[2]) / 120)
    assert found.n == 120


@pytest.mark.slow
def test_what_was_measured_is_let_go() -> None:
    """Of many batches no more than a block's stay in memory."""
    measure, batches = Kid(block=50), []
    for pair in zip(split(rows(400, 1), 30), split(rows(400, 2), 30), strict=True):
        clones = [batch.clone() for batch in pair]
        batches += [weakref.ref(batch) for batch in clones]
        measure.add(*clones)
        del clones
        gc.collect()
        assert sum(batch() is not None for batch in batches) <= 2 * 2
    assert measure.result() is not None


def test_a_longer_reference_is_cut_for_blocks_and_read_whole_for_sums() -> None:
    x, y = rows(300, 1), rows(120, 2, 0.3)
    kid, cut = between(Kid(), split(x), split(y)), between(Kid(), [x[:120]], [y])
    assert kid is not None
    assert cut is not None
    assert kid.n == cut.n == 120
    assert kid.value == pytest.approx(cut.value)
    whole, part = between(Fid(), split(x), split(y)), between(Fid(), split(x[:120]), split(y))
    assert whole is not None
    assert part is not None
    assert whole.value != pytest.approx(part.value, rel=1e-3)


@pytest.mark.parametrize("make", [Fid, Kid, Cmmd])
def test_sets_of_one_kind_are_near_and_others_are_not(make: Callable[[], Distribution]) -> None:
    same, other = (between(make(), [rows(300, 1)], [rows(300, 2, shift)]) for shift in (0.0, 3.0))
    assert same is not None
    assert other is not None
    assert same.value < other.low < other.value < other.high
    assert between(make(), [rows(10, 1)], [rows(10, 2)]) is None
    assert between(make(), [], []) is None


def test_an_interval_covers_the_value_of_many() -> None:
    """KID is unbiased, so the interval from 200 should mostly hold what 4000 say."""
    far = between(Kid(), [rows(4000, 90)], [rows(4000, 91, 0.3)])
    assert far is not None
    hits = 0
    for seed in range(20):
        found = between(Kid(), [rows(200, 2 * seed)], [rows(200, 2 * seed + 1, 0.3)])
        assert found is not None
        hits += found.low <= far.value <= found.high
    assert hits >= 16


def test_effnet_sees_a_cat() -> None:
    from skimage import data

    features = EffnetFeatures()
    cat = Image.fromarray(data.cat())
    with torch.no_grad():
        row = features([cat])
        assert row.shape == (1, 1280)
        likely = int(features.model._fc(row).argmax())
    assert likely in {281, 282, 283, 284, 285}  # ImageNet's domestic cats
    assert features.name.startswith("effnet-lite0@")


def test_a_reference_without_images_is_an_error_before_anything_is_sampled(tmp_path: Path) -> None:
    for folder, got in ((tmp_path, "no .png"), (tmp_path / "none", "no such folder")):
        with pytest.raises(DuoError, match="holds no images") as raised:
            reference_pictures(folder)
        assert got in str(raised.value.got)
        _, faults = find_faults({"output": str(tmp_path / "run"), "evaluate": {"reference": str(folder)}})
        assert any("holds no images" in str(fault) for fault in faults)


def drawn(folder: Path, count: int) -> tuple[list[str], list[Path]]:
    """Prompts and pictures of figures with a flower."""
    rng, texts, files = random.Random(0), [], []
    for i in range(count):
        scene = random_scene(rng, subjects=SUBJECTS, items=("flower",))
        texts.append(f"a {scene.colour} {scene.subject} with a flower")
        files.append(folder / f"{i}.png")
        draw(scene).save(files[-1])
    return texts, files


def source(system: str) -> Source:
    return Source(system, "ab12", "keep", None, None, None, "", (0,))


def test_fidelity_of_drawn_scenes(tmp_path: Path) -> None:
    texts, files = drawn(tmp_path, 25)
    found, absent = fidelity("mini", Images(source("duo"), texts, files, files, None))
    original, nothing = fidelity("mini", Images(source("original"), texts, files, None, None))
    by_name = {e.metric: e for e in found}
    assert by_name["prior preservation"].value == pytest.approx(1.0)
    assert by_name["cmmd"].value == pytest.approx(0.0, abs=1e-6)
    assert [e.metric for e in original] == ["clip score"]
    assert original[0].value == by_name["clip score"].value > 0.15
    assert (original[0].system, by_name["cmmd"].system, nothing) == ("original", "duo", [])
    reasons = dict(absent)
    assert set(reasons) - {"lpips"} == {"fid"}  # LPIPS may be at hand
    assert "25 images, 100 are needed" in reasons["fid"]


def test_distances_are_measured_from_a_reference_for_every_system(tmp_path: Path) -> None:
    texts, files = drawn(tmp_path, 25)
    other = tmp_path / "reference"
    other.mkdir()
    for path in files[:20]:
        (other / path.name).write_bytes(path.read_bytes())
    for system, original in (("original", None), ("duo", files)):
        found, _ = fidelity("mini", Images(source(system), texts, files, original, other))
        (kid,) = [e for e in found if e.metric == "kid"]
        assert "from reference (20 images, " in kid.contract
    assert "cache" in (why_no_clip("sd1") or "cache")


def test_lpips_is_among_what_is_measured_where_its_weights_are(tmp_path: Path) -> None:
    texts, files = drawn(tmp_path, 2)
    found, absent = fidelity("mini", Images(source("duo"), texts, files, files, None))
    assert ("lpips" in dict(absent)) != ("lpips" in {e.metric for e in found})
