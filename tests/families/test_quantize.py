"""A base in 8 bits: refused where it cannot be had, and, where torchao is installed, trained through."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from duo_unlearn.errors import DuoError
from duo_unlearn.families.load import check_quantize

from . import small_models as small

INSTALLED = importlib.util.find_spec("torchao") is not None
TRAIN = """
import sys, torch
from pathlib import Path
from duo_unlearn.edits.lora import adapters_off, attach
from duo_unlearn.families.load import load_model
plain = load_model(sys.argv[1], torch.device("cpu"), resolution=32)
model = load_model(sys.argv[1], torch.device("cpu"), resolution=32, quantize="int8")
layer = model.denoiser.transformer_blocks[0].attn.to_q
assert "Int8" in type(layer.weight).__name__, type(layer.weight)
noisy, t, text = torch.randn(1, 16, 8, 8), torch.tensor([500]), model.condition(["a knight"])
expected = plain.predict(noisy, t, text)
parameters = attach(model, rank=2, seed=0)
got = model.predict(noisy, t, text)
assert 0 < (got - expected).abs().mean() < 0.05 * expected.std(), (got - expected).abs().mean()
with torch.no_grad(), adapters_off(model.denoiser):
    assert torch.equal(model.predict(noisy, t, text), got)
got.square().mean().backward()
assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
"""


@pytest.mark.skipif(not INSTALLED, reason="torchao, the extra `quantize`, is not installed")
def test_training_goes_through_an_int8_base(tmp_path: Path) -> None:
    model = small.flux(tmp_path / "model")
    done = subprocess.run([sys.executable, "-c", TRAIN, str(model)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(INSTALLED, reason="torchao is installed")
def test_the_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="not installed") as caught:
        check_quantize("flux", str(tmp_path))
    assert caught.value.hint == "pip install duo_unlearn[quantize]"


@pytest.mark.parametrize(("family", "source"), [("sd1", "folder"), ("mini", "mini"), ("flux", "model.safetensors")])
def test_where_it_cannot_be_had(family: str, source: str) -> None:
    with pytest.raises(DuoError, match="in diffusers' format"):
        check_quantize(family, source)
