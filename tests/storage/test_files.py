"""Files are whole or absent, also when the writer fails or the disk is full."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from duo_unlearn.errors import DuoError
from duo_unlearn.storage import files as storage


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_half_way(path: Path) -> None:
    with storage.atomic(path) as temporary:
        temporary.write_text("half of the new")
        raise KeyError("the writer")


def write_to_a_full_disk(path: Path) -> None:
    with storage.atomic(path) as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("new")  # the kernel's own ENOSPC


def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError):
        fail_half_way(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_new_contents_appear_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on the way" / "a.txt"
    with storage.atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    script = (
        "import os, signal, sys; from pathlib import Path; from duo_unlearn.storage import atomic\n"
        "with atomic(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60)
    assert done.returncode == -9
    assert path.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_an_error_of_three_lines_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(DuoError, match="the disk is full") as caught:
        write_to_a_full_disk(path)
    assert len(str(caught.value).splitlines()) <= 3
    assert caught.value.hint is not None
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: IoError(Os { code: 28, message: 'No space left on device' })"),
    ],
    ids=["full", "quota", "as safetensors says it"],
)
def test_every_kind_of_full_is_told_as_such(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(DuoError, match="the disk is full"), storage.atomic(tmp_path / "a"):
        raise error


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DuoError, match="cannot write") as caught:
        storage.write_text(tmp_path / "file" / "a.txt", "new")
    assert len(str(caught.value).splitlines()) <= 3


def test_json_roundtrip_keeps_order_and_letters(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None], "a": {"β": "ü"}}
    storage.write_json(tmp_path / "a.json", content)
    found = storage.read_json(tmp_path / "a.json")
    assert found == content
    assert list(found) == ["b", "a"]
    assert "β" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(("content", "message"), [(None, "cannot read"), ("{broken", "not valid JSON")])
def test_json_that_is_missing_or_broken(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DuoError, match=message):
        storage.read_json(path)


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


def test_sha256_of_a_file_larger_than_a_block(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert storage.sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


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
    storage.write_tensors(tmp_path / "o.safetensors", storage.optimizer_tensors(optimizer))
    halfway = [p.detach().clone() for p in through]
    _stepped(through, optimizer, range(3, 6))

    resumed, other = fresh(0.1)
    with torch.no_grad():
        for parameter, value in zip(resumed, halfway, strict=True):
            parameter.copy_(value)
    storage.restore_optimizer(other, storage.read_tensors(tmp_path / "o.safetensors")[0])
    _stepped(resumed, other, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(through, resumed, strict=True))


def test_a_restored_optimizer_keeps_its_own_settings() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    saved = torch.optim.AdamW([parameter], lr=0.1)
    _stepped([parameter], saved, range(1))
    other = torch.optim.AdamW([parameter], lr=0.5)
    storage.restore_optimizer(other, storage.optimizer_tensors(saved))
    assert other.param_groups[0]["lr"] == 0.5


def test_the_same_tensors_and_metadata_give_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from duo_unlearn.storage import write_tensors;"
        "write_tensors(Path(sys.argv[1]), {'a': torch.arange(3.0)}, {k: k for k in 'bcdefgh'})"
    )
    for name in "123":
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert len({(tmp_path / name).read_bytes() for name in "123"}) == 1
    assert storage.read_tensors(tmp_path / "1")[1]["h"] == "h"
