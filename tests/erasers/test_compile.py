"""A denoiser that is compiled while it is trained: the same loss and gradient, and nothing is left of it afterwards."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor

from duo_unlearn.erasers.duo.course import compiled
from duo_unlearn.erasers.duo.loss import DuoLoss
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Model
from duo_unlearn.runs.folder import Run

from .small import prepare, quick
from .test_fewer_passes import gradient, trained_a_little

pytestmark = [
    pytest.mark.slow,
    # What torch says to itself while it compiles.
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:The .grad attribute:UserWarning"),
]
STEP = quick(compile=True)


def blocks(model: Model) -> list[Any]:
    return [m for m in model.denoiser.modules() if type(m).__name__ == "BasicTransformerBlock"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="nothing compiles here")
def test_a_compiled_step_has_the_same_loss_and_gradient(run: Run) -> None:
    model, cache, _, parameters = trained_a_little(run)

    def step() -> tuple[float, Tensor]:
        terms = DuoLoss(model, cache, STEP, 0)(0, range(2))
        return terms.loss.item(), gradient(terms, parameters)

    plain = step()
    with compiled(model, STEP):
        assert all(block._compiled_call_impl is not None for block in blocks(model))
        fast = step()
    assert fast[0] == pytest.approx(plain[0], rel=1e-5)
    assert float((fast[1] - plain[1]).norm()) <= 1e-3 * float(plain[1].norm())
    assert all(module._compiled_call_impl is None for module in model.denoiser.modules())
    assert torch.equal(step()[1], plain[1])


def test_a_compiler_that_is_not_there_is_told(run: Run) -> None:
    from torch._inductor import config

    model, cache, _ = prepare(run)
    missing = config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True})
    with missing, pytest.raises(DuoError, match="cannot compile"), compiled(model, STEP):
        DuoLoss(model, cache, STEP, 0)(0, range(2))
    assert all(module._compiled_call_impl is None for module in model.denoiser.modules())
