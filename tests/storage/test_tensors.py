"""Tensors on disk: the same bytes for the same content, and nothing that is broken, not finite or a pickle is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from duo_unlearn.errors import DuoError
from duo_unlearn.storage import files as storage
from duo_unlearn.storage import optimizer_state


def test_tensors_and_metadata_roundtrip(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    turned = torch.arange(6.0).view(2, 3).T  # not contiguous
    storage.write_tensors(path, {"x": turned, "n": torch.tensor(3)}, {"step": "7"})
    tensors, metadata = storage.read_tensors(path)
    assert torch.equal(tensors["x"], turned)
    assert tensors["n"].item() == 3
    assert metadata == {"step": "7"}


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04pickle"])
def test_tensors_that_are_missing_or_no_safetensors(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DuoError, match="safetensors"):
        storage.read_tensors(path)


def test_truncated_tensors_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    storage.write_tensors(path, {"x": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DuoError, match="safetensors"):
        storage.read_tensors(path)


def _stepped(parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        sum(((p - step) ** 2).sum() for p in parameters).backward()  # type: ignore[union-attr]
        optimizer.step()


def test_an_optimizer_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def fresh(lr: float) -> tuple[list[torch.nn.Parameter], torch.optim.AdamW]:
        parameters = [torch.nn.Parameter(torch.linspace(0, 1, size)) for size in (3, 5)]
        return parameters, torch.optim.AdamW(parameters, lr=lr)

    through, optimizer = fresh(0.1)
    _stepped(through, optimizer, range(3))
    storage.write_tensors(tmp_path / "o.safetensors", optimizer_state.optimizer_tensors(optimizer))
    halfway = [p.detach().clone() for p in through]
    _stepped(through, optimizer, range(3, 6))

    resumed, other = fresh(0.1)
    with torch.no_grad():
        for parameter, value in zip(resumed, halfway, strict=True):
            parameter.copy_(value)
    optimizer_state.restore_optimizer(other, storage.read_tensors(tmp_path / "o.safetensors")[0])
    _stepped(resumed, other, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(through, resumed, strict=True))


def test_a_restored_optimizer_keeps_its_own_settings() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    saved = torch.optim.AdamW([parameter], lr=0.1)
    _stepped([parameter], saved, range(1))
    other = torch.optim.AdamW([parameter], lr=0.5)
    optimizer_state.restore_optimizer(other, optimizer_state.optimizer_tensors(saved))
    assert other.param_groups[0]["lr"] == 0.5


def test_a_file_of_no_tensors_is_read_again(tmp_path: Path) -> None:
    storage.write_tensors(tmp_path / "a.safetensors", {})
    assert storage.read_tensors(tmp_path / "a.safetensors") == ({}, {})


@pytest.mark.slow
def test_the_same_tensors_and_metadata_give_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from duo_unlearn.storage.files import write_tensors;"
        "write_tensors(Path(sys.argv[1]), {'a': torch.arange(3.0)}, {k: k for k in 'bcdefgh'})"
    )
    for name in "12":
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert len({(tmp_path / name).read_bytes() for name in "12"}) == 1
    assert storage.read_tensors(tmp_path / "1")[1]["h"] == "h"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_that_are_not_finite_are_refused_and_the_first_is_named(
    tmp_path: Path, value: float, dtype: torch.dtype
) -> None:
    path, broken = tmp_path / "a.safetensors", torch.ones(3, 4, dtype=dtype)
    broken[1, 2] = value
    storage.write_tensors(path, {"a.fine": torch.ones(2), "b.broken": broken, "c": torch.arange(3)})
    with pytest.raises(DuoError, match="not finite") as caught:
        storage.read_tensors(path)
    assert len(str(caught.value).splitlines()) == 3
    assert "1 of 12 values of 'b.broken'" in str(caught.value)
    assert torch.equal(storage.read_tensors(path, finite=False)[0]["c"], torch.arange(3))


def test_eight_bit_floats_are_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    storage.write_tensors(path, {"a": torch.ones(3).to(torch.float8_e4m3fn)})
    assert storage.read_tensors(path)[0]["a"].dtype == torch.float8_e4m3fn
    storage.write_tensors(path, {"a": torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn)})
    with pytest.raises(DuoError, match="not finite"):
        storage.read_tensors(path)


@pytest.mark.parametrize("name", ["a.bin", "a.pt", "a.ckpt", "a.pth", "a.safetensors"])
def test_a_pickle_is_told_as_such(tmp_path: Path, name: str) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / name)
    with pytest.raises(DuoError, match="a pickle that could run code") as caught:
        storage.read_tensors(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 3
