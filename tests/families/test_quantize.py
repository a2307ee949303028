"""A base in 8 or 4 bits: refused where it cannot be had, and, where the library is installed, trained through."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from duo_unlearn.errors import DuoError
from duo_unlearn.families.quantize import KINDS, check_quantize, check_quantize_device, why_no_package
from duo_unlearn.records import Quantize

from . import small_models as small

INSTALLED: dict[str, bool] = {kind: importlib.util.find_spec(kept.package) is not None for kind, kept in KINDS.items()}
TRAIN = """
import sys, torch
from pathlib import Path
from duo_unlearn.edits.lora import adapters_off, attach
from duo_unlearn.families.load import load_model
kind, words, most = sys.argv[2:]
if kind == "nf4":
    # diffusers asks for a GPU, and the library itself has a backend for CPUs: what is loaded there is the same.
    from diffusers.quantizers.bitsandbytes.bnb_quantizer import BnB4BitDiffusersQuantizer
    import duo_unlearn.families.load as loading
    BnB4BitDiffusersQuantizer.validate_environment = lambda self, *args, **kwargs: None
    BnB4BitDiffusersQuantizer.update_device_map = lambda self, device_map: {"": "cpu"}
    loading.check_quantize_device = lambda kind, device: None
plain = load_model(sys.argv[1], torch.device("cpu"), resolution=32)
model = load_model(sys.argv[1], torch.device("cpu"), resolution=32, quantize=kind)
layer = model.denoiser.transformer_blocks[0].attn.to_q
assert words in type(layer.weight).__name__, type(layer.weight)
assert model.variant == f"32px, float32, {kind}"
noisy, t, text = torch.randn(1, 16, 8, 8), torch.tensor([500]), model.condition(["a knight"])
expected = plain.predict(noisy, t, text)
parameters = attach(model, rank=2, seed=0)
got = model.predict(noisy, t, text)
assert 0 < (got - expected).abs().mean() < float(most) * expected.std(), (got - expected).abs().mean()
with torch.no_grad(), adapters_off(model.denoiser):
    assert torch.equal(model.predict(noisy, t, text), got)
got.square().mean().backward()
assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
"""


@pytest.mark.parametrize(("kind", "words", "most"), [("int8", "Int8", 0.05), ("nf4", "Params4bit", 0.3)])
def test_training_goes_through_a_base_in_few_bits(tmp_path: Path, kind: str, words: str, most: float) -> None:
    if not INSTALLED[kind]:
        pytest.skip(f"{KINDS[kind].package}, the extra `{KINDS[kind].extra}`, is not installed")  # type: ignore[index]
    model = small.flux(tmp_path / "model")
    command = [sys.executable, "-c", TRAIN, str(model), kind, words, str(most)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("kind", "extra"), [("int8", "quantize"), ("nf4", "nf4")])
def test_the_extra_is_named(tmp_path: Path, kind: Quantize, extra: str) -> None:
    if INSTALLED[kind]:
        assert why_no_package(kind) is None
        check_quantize(kind, "flux", str(tmp_path))
        return
    with pytest.raises(DuoError, match="not installed") as caught:
        check_quantize(kind, "flux", str(tmp_path))
    assert caught.value.hint == why_no_package(kind) == f"pip install duo_unlearn[{extra}]"


def test_four_bits_need_a_gpu() -> None:
    with pytest.raises(DuoError, match="needs a GPU") as caught:
        check_quantize_device("nf4", torch.device("cpu"))
    assert "int8" in str(caught.value.hint)
    for kind, device in (("nf4", "cuda"), ("int8", "cpu"), ("no", "cpu")):
        check_quantize_device(kind, torch.device(device))  # type: ignore[arg-type]


@pytest.mark.parametrize(("family", "source"), [("sd1", "folder"), ("mini", "mini"), ("flux", "model.safetensors")])
def test_where_it_cannot_be_had(family: str, source: str) -> None:
    for kind in KINDS:
        with pytest.raises(DuoError, match="in diffusers' format"):
            check_quantize(kind, family, source)
