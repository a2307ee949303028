"""Precision, trackers and ends of a training: what half precision changes, and what it must not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from duo_unlearn.erasers.trainer import MOST_OVERFLOWS, is_sound, make_accelerator, train
from duo_unlearn.errors import DuoError
from duo_unlearn.families.load import lacks_bf16, load_model
from duo_unlearn.runs.folder import Run

from .small import CPU, prepare, quick


def test_a_base_has_one_hash_in_every_precision() -> None:
    found = {load_model("mini", CPU, dtype).fingerprint() for dtype in (torch.float32, torch.float16, torch.bfloat16)}
    assert len(found) == 1


@pytest.mark.slow
def test_bf16_autocast_trains_a_float32_adapter(run: Run) -> None:
    model, cache, pairs = prepare(run)
    train(model, cache, pairs, run, quick(mixed_precision="bf16", max_train_steps=2), seed=0, name="duo", quiet=True)
    lines = [json.loads(line) for line in run.metrics("duo").read_text().splitlines()]
    assert lines[0]["preference"] == pytest.approx(math.log(2), abs=1e-5)
    assert lines[1]["gradient_norm"] > 0
    assert {p.dtype for name, p in model.denoiser.named_parameters() if "lora_" in name} == {torch.float32}


def test_an_overflow_of_the_loss_scaler_is_no_end_but_many_in_a_row_are() -> None:
    fine, overflow = {"loss": 0.7, "gradient_norm": 1.0}, {"loss": 0.7, "gradient_norm": math.inf}
    assert is_sound(fine, 0, scaled=False)
    assert is_sound(overflow, 1, scaled=True)
    assert not is_sound(overflow, 1, scaled=False)
    assert not is_sound(overflow, MOST_OVERFLOWS + 1, scaled=True)
    assert not is_sound({"loss": math.nan, "gradient_norm": math.nan}, 1, scaled=True)


@pytest.mark.slow
def test_a_tracker_gets_every_step(run: Run) -> None:
    model, cache, pairs = prepare(run)
    train(model, cache, pairs, run, quick(report_to="tensorboard", max_train_steps=2), seed=0, name="duo", quiet=True)
    events = list(run.checkpoint("duo").parent.rglob("events.out.tfevents*"))
    assert events
    assert b"preference" in b"".join(path.read_bytes() for path in events)


@pytest.mark.parametrize(
    ("changes", "said"), [({"report_to": "nonesuch"}, "not installed"), ({"mixed_precision": "fp16"}, "needs a GPU")]
)
def test_what_this_machine_cannot_do_is_said_first(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    with pytest.raises(DuoError, match=said):
        make_accelerator(quick(**changes), CPU, tmp_path)


@pytest.mark.parametrize(
    ("capabilities", "lacks"),
    [({"avx2": True, "avx512_f": True}, True), ({"avx512_bf16": True}, False), ({"neon": True, "bf16": True}, False)],
)
def test_a_cpu_without_bf16_units_is_told(capabilities: dict[str, bool], *, lacks: bool) -> None:
    assert (lacks_bf16(CPU, capabilities) is not None) == lacks
    assert lacks_bf16(torch.device("cuda"), capabilities) is None
    assert lacks_bf16(CPU, {}) is None  # a torch that cannot tell


def test_bf16_that_gains_nothing_is_said_and_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_accelerator(quick(mixed_precision="bf16"), CPU, tmp_path)
    assert ("gains no time here" in capsys.readouterr().err) == (lacks_bf16(CPU) is not None)
    make_accelerator(quick(), CPU, tmp_path)
    assert not capsys.readouterr().err


@pytest.mark.slow
def test_fewer_steps_than_the_checkpoint_has_are_refused(run: Run) -> None:
    model, cache, pairs = prepare(run)
    train(model, cache, pairs, run, quick(max_train_steps=2), seed=0, name="duo", quiet=True)
    with pytest.raises(DuoError, match="further than the steps asked for"):
        train(load_model("mini", CPU), cache, pairs, run, quick(max_train_steps=1), seed=0, name="duo", quiet=True)
