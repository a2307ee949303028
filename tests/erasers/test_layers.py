"""What ESD-u trains: by what a layer reads, and not by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from duo_unlearn.erasers.layers import trained_names
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model

from ..families import small_models as small
from ..families.small_llms import LLMS
from ..slow import slow_but

MAKERS: dict[str, Callable[[Path], Path]] = {**LLMS, "sd3": small.sd3, "flux": small.flux}
FAST = ("sd3", "flux2-klein", "qwen-image", "z-image")
TEXTS = ("a red knight with a sword", "a blue boat")


def inputs_of(model: Model, names: list[str], latents: Tensor, text: str, t: int = 500) -> dict[str, Tensor]:
    """What each layer reads when it is called first in a pass."""
    found: dict[str, Tensor] = {}
    layers = dict(model.denoiser.named_modules())

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def keep(_layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            found.setdefault(name, given[0].detach().clone())

        return keep

    hooks = [layers[name].register_forward_pre_hook(note(name)) for name in names]
    with torch.no_grad():
        model.predict(latents, torch.full((1,), t), model.condition([text]))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("family", slow_but(sorted(MAKERS), FAST))
def test_on_a_transformer_no_layer_that_reads_the_text_alone_is_trained(family: str, tmp_path: Path) -> None:
    model = load_model(str(MAKERS[family](tmp_path / "model")), torch.device("cpu"), resolution=small.RESOLUTION)
    prefix = f"{model.denoiser_name}."
    names = sorted({name.removeprefix(prefix).rpartition(".")[0] for name in trained_names(model, "u")})
    pictures = [Image.new("RGB", (small.RESOLUTION, small.RESOLUTION), colour) for colour in ("red", "blue")]
    latents = [model.encode_images([picture]).mean for picture in pictures]
    here, elsewhere = (inputs_of(model, names, one, TEXTS[0]) for one in latents)
    reworded, earlier = (
        inputs_of(model, names, latents[0], TEXTS[1]),
        inputs_of(model, names, latents[0], TEXTS[0], 100),
    )

    def same(one: Tensor, other: Tensor) -> bool:
        return one.shape == other.shape and torch.equal(one, other)

    unmoved = [name for name in names if same(here[name], elsewhere[name]) and same(here[name], earlier[name])]
    assert [name for name in unmoved if not same(here[name], reworded[name])] == []
    assert any(not same(here[name], elsewhere[name]) for name in names)
    assert any(name.endswith("to_q") for name in names)
