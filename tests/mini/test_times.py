"""How long each stage took is read from the files that it left."""

from __future__ import annotations

from pathlib import Path

import torch

from duo_unlearn.mini.fit.times import stage_times
from duo_unlearn.storage.files import write_tensors


def finished(folder: Path, stage: str, seconds: str, machine: str) -> None:
    facts = {"loss": "0.1", "seconds": seconds, "machine": machine}
    write_tensors(folder / f"{stage}.safetensors", {"x": torch.zeros(1)}, facts)


def test_finished_stages_stand_in_their_order_with_whole_seconds(tmp_path: Path) -> None:
    finished(tmp_path, "judge_b", "3725.6", "NVIDIA H100")
    finished(tmp_path, "clip", "471.8", "2 CPU cores")
    found = stage_times(tmp_path)
    assert list(found) == ["clip", "judge_b"]
    assert found["clip"] == {"seconds": 472, "machine": "2 CPU cores"}
    assert found["judge_b"] == {"seconds": 3726, "machine": "NVIDIA H100"}


def test_what_is_under_way_or_no_stage_has_no_time(tmp_path: Path) -> None:
    assert stage_times(tmp_path) == {}
    write_tensors(tmp_path / "unet.checkpoint.safetensors", {"x": torch.zeros(1)}, {"step": "3", "seconds": "9.0"})
    write_tensors(tmp_path / "latents.safetensors", {"x": torch.zeros(1)})
    assert stage_times(tmp_path) == {}
