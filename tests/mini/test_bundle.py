"""The parts beside the pipeline load from a model folder, or say what is wrong with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from duo_unlearn.errors import DuoError
from duo_unlearn.mini.model import bundle
from duo_unlearn.mini.model.judge_net import JUDGES, JudgeNet
from duo_unlearn.mini.model.parts import token_ids
from duo_unlearn.storage.files import read_tensors, write_tensors

CPU = torch.device("cpu")


def test_absent_weights_are_an_error_that_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundle, "WEIGHTS", tmp_path / "nothing")
    with pytest.raises(DuoError, match="duo mini fit"):
        bundle.weights_folder()


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_is_float32_and_ready_to_judge(untrained: Path, name: str) -> None:
    judge = bundle.load_judge(untrained, CPU, name)
    saved = read_tensors(untrained / name / "model.safetensors")[0]
    assert isinstance(judge, JUDGES[name])
    assert not judge.training
    for key, value in judge.state_dict().items():
        assert value.dtype == torch.float32
        assert saved[key].dtype == torch.float16
        assert torch.equal(value, saved[key].float())
    assert not any(p.requires_grad for p in judge.parameters())


def test_the_judge_that_is_not_named_is_judge_a(untrained: Path) -> None:
    assert isinstance(bundle.load_judge(untrained, CPU), JudgeNet)


@pytest.mark.parametrize("name", JUDGES)
def test_a_folder_without_a_judge(tmp_path: Path, name: str) -> None:
    with pytest.raises(DuoError, match=rf"cannot read .*{name}/"):
        bundle.load_judge(tmp_path, CPU, name)


def test_weights_of_something_else_are_no_judge(tmp_path: Path) -> None:
    write_tensors(tmp_path / "judge" / "model.safetensors", {"x": torch.zeros(2)})
    with pytest.raises(DuoError, match="no weights of the judge") as caught:
        bundle.load_judge(tmp_path, CPU)
    assert len(str(caught.value).splitlines()) <= 3


def test_one_judges_weights_are_not_the_others(untrained: Path, tmp_path: Path) -> None:
    shutil.copytree(untrained / "judge", tmp_path / "judge_b")
    with pytest.raises(DuoError, match="no weights of the judge"):
        bundle.load_judge(tmp_path, CPU, "judge_b")


@torch.no_grad()
def test_clip_loads_in_float32_with_its_tokenizer(untrained: Path) -> None:
    clip, tokenizer = bundle.load_clip(untrained, CPU)
    assert {p.dtype for p in clip.parameters()} == {torch.float32}
    assert not clip.training
    embedded = clip.get_text_features(input_ids=token_ids(tokenizer, ["a red knight"])).pooler_output
    assert embedded.shape == (1, 64)


def test_a_folder_without_clip(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="cannot load the CLIP") as caught:
        bundle.load_clip(tmp_path, CPU)
    assert len(str(caught.value).splitlines()) <= 3


def test_the_shipped_weights_are_fp16_safetensors_of_32_megabytes_at_most(shipped: Path) -> None:
    files = [path for path in shipped.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 32e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".png"}
    for path in shipped.rglob("*.safetensors"):
        floats = {v.dtype for v in read_tensors(path)[0].values() if v.is_floating_point()}
        assert floats == {torch.float16}, path
