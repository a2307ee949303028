"""On the published configurations, without weights: how large they are, and which layers get an adapter."""

from __future__ import annotations

import re

import pytest
from benchmarks.published import published_denoiser
from torch import nn

from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.records import Targets

TEXT_SIDE = re.compile(r"attn2\.|add_(q|k|v)_proj|to_add_out|context|text_encoder")


def adapted(denoiser: nn.Module, family: str, targets: Targets) -> list[str]:
    pattern = re.compile(FAMILIES.get(family).targets[targets])
    return [
        name for name, layer in denoiser.named_modules() if isinstance(layer, nn.Linear) and pattern.fullmatch(name)
    ]


@pytest.mark.parametrize(
    ("family", "layers", "wider"),
    # 16, 16 and 70 transformer blocks of 4 layers, twice that with cross-attention; 24 and 19 double-stream
    # blocks of 4 image layers and 4 text ones (SD3's last block has no text output), and 38 single blocks of 3.
    # FLUX.2: 5 and 8 double-stream blocks, 20 and 48 single ones with one fused layer. Qwen-Image: 60 blocks. Z-Image:
    # 30 blocks, two that refine the noise and two that refine the text.
    [
        ("sd1", 64, 128),
        ("sd2", 64, 128),
        ("sdxl", 280, 560),
        ("sd3", 96, 191),
        ("flux", 76, 76 + 76 + 114),
        ("flux2", 32, 32 + 32 + 48),
        ("flux2-klein", 20, 20 + 20 + 20),
        ("qwen-image", 240, 480),
        ("z-image", 128, 136),
    ],
)
def test_which_layers_are_adapted(family: str, layers: int, wider: int) -> None:
    denoiser = published_denoiser(family)
    size = FAMILIES.get(family).size
    assert size is not None
    assert sum(p.numel() for p in denoiser.parameters()) / 1e6 == pytest.approx(size.denoiser, rel=2e-3)
    assert type(denoiser).__name__ == FAMILIES.get(family).denoiser_class
    names, every = (adapted(denoiser, family, targets) for targets in ("self-attention", "all-attention"))
    assert (len(names), len(every)) == (layers, wider)
    assert not any(TEXT_SIDE.search(name) for name in names)
    linear = dict(denoiser.named_modules())
    for chosen, millions in zip((names, every), size.adapter, strict=True):
        sides = sum(linear[name].in_features + linear[name].out_features for name in chosen)
        assert 32 * sides / 1e6 == pytest.approx(millions, rel=2e-3)
