"""What others erased is attacked and measured without a run of ours, from the command line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import duo_unlearn as api
from duo_unlearn.cli.main import main
from duo_unlearn.errors import DuoError
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.results import read_results
from duo_unlearn.session import Session

from ..command import duo
from ..drawn_pairs import draw_pairs
from ..families import small_models as small

QUICK = ["--attack", "direct", "--attack", "image-to-image", "--count", "2"]
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini model as someone merged an eraser into it: two weights of its U-Net are changed."""
    folder = tmp_path_factory.mktemp("theirs") / "their-model"
    shutil.copytree(weights_folder(), folder)
    tensors = load_file(folder / UNET)
    for name in ("conv_in.weight", "conv_out.weight"):
        tensors[name] = 1.2 * tensors[name]
    save_file(tensors, folder / UNET)
    return folder


@pytest.mark.slow
def test_an_erased_folder_is_attacked_and_stays_a_system_of_the_run(erased: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    words = ["attack", "-o", str(run.folder), "--model", "mini", "--concept", "sword", *QUICK]
    done = duo(*words, "--erased", str(erased))
    assert done.returncode == 0, done.stderr
    results = read_results(run)
    systems = {(e.system, e.attack) for e in results.estimates if e.metric == "dsr"}
    assert {("their-model", None), ("their-model", "image-to-image"), ("original", None)} <= systems
    provenance = json.loads((run.edit("their-model") / "provenance.json").read_text())
    assert (provenance["made_by"], provenance["source"]) == ("others", "their-model")
    # Afterwards its name is enough, with guards too.
    again = ["--system", "their-model", "--guard", "negative-prompt", "--attack", "direct", "--count", "2"]
    done = duo("attack", str(run.folder), *again)
    assert done.returncode == 0, done.stderr
    assert "their-model+negative-prompt" in {e.system for e in read_results(run).estimates}
    assert "no fault found" in duo("check", str(run.folder)).stderr


@pytest.mark.slow
def test_a_state_dict_is_evaluated(erased: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    part = tmp_path / "theirs.safetensors"
    save_file({"conv_in.weight": load_file(erased / UNET)["conv_in.weight"]}, part)
    counts = {"prompts": 2, "keep_prompts": 2, "neighbour_prompts": 1, "inversion_prompts": 0, "steps": 2}
    settings = [word for key, value in counts.items() for word in ("--set", f"evaluate.{key}={value}")]
    done = duo("evaluate", "-o", str(run.folder), "--unet", str(part), "--system", "esd", *settings)
    assert done.returncode == 0, done.stderr
    assert {e.system for e in read_results(run).estimates} == {"original", "esd"}


@pytest.mark.slow
def test_an_evaluation_makes_the_pairs_that_an_inversion_needs(erased: Path, tmp_path: Path) -> None:
    run = tiny_run(erased, tmp_path, {"evaluate.inversion_prompts": 1})
    results = api.evaluate(run, ["esd"])
    assert ("esd", "concept-inversion") in {(e.system, e.attack) for e in results.estimates}


def test_a_guard_that_learns_gets_pairs_first_and_its_numbers_are_not_stale(erased: Path, tmp_path: Path) -> None:
    run = tiny_run(erased, tmp_path, {"guards.inverted-negative": {"steps": 1}})
    _, results = api.attack(run, ["direct"], systems=["esd+inverted-negative"], prompts=2)
    assert "esd+inverted-negative" in {e.system for e in results.estimates}
    assert not [entry for entry in results.absent if entry["metric"] == "dsr"]


@pytest.mark.parametrize(
    "name", ["../../../mine.txt", "a/b", "..", ".a", "", "a+b", "original", "sld", "a" * 101, "a\\b"]
)
def test_a_name_that_no_edit_can_have_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    run = api.open_run(tmp_path / "run", quiet=True)
    mine = tmp_path / "run" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(DuoError, match="cannot be the name of an edit") as caught:
        api.add_edit(run, name, lora=tmp_path / "theirs.safetensors")
    assert len(str(caught.value).splitlines()) == 3
    assert mine.read_text() == "mine"
    assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]


def tiny_run(erased: Path, folder: Path, settings: dict[str, Any]) -> Session:
    """A run without pairs in which `esd` is a U-Net of others; pairs of the user's own are named."""
    draw_pairs(folder / "mine", 2)
    counts = {"prompts": 2, "keep_prompts": 2, "neighbour_prompts": 1, "inversion_prompts": 0, "steps": 2}
    counts |= {"inversion_steps": 1, "inversion_batch": 1}
    given = {"pairs.folder": str(folder / "mine"), **{f"evaluate.{key}": value for key, value in counts.items()}}
    run = api.open_run(folder / "run", settings={**given, **settings}, quiet=True)
    api.add_edit(run, "esd", unet=erased / UNET)
    return run


def _another_family(folder: Path) -> list[str]:
    return ["--erased", str(small.sdxl(folder / "sdxl"))]


def _another_size(folder: Path) -> list[str]:
    save_file({"conv_in.weight": torch.zeros(8, 4, 3, 3)}, folder / "x.safetensors")
    return ["--unet", str(folder / "x.safetensors")]


def _another_architecture(folder: Path) -> list[str]:
    save_file({"transformer_blocks.0.attn.to_q.weight": torch.zeros(8, 8)}, folder / "x.safetensors")
    return ["--unet", str(folder / "x.safetensors")]


def _not_finite(folder: Path) -> list[str]:
    save_file({"conv_in.weight": torch.full((48, 4, 3, 3), float("nan"))}, folder / "x.safetensors")
    return ["--unet", str(folder / "x.safetensors")]


def _pickle(folder: Path) -> list[str]:
    torch.save({"conv_in.weight": torch.zeros(1)}, folder / "x.pt")
    return ["--text-encoder", str(folder / "x.pt")]


def _unknown_keys(folder: Path) -> list[str]:
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_z"
    tensors = {f"{layer}.lora_A.weight": torch.zeros(2, 128), f"{layer}.lora_B.weight": torch.zeros(128, 2)}
    save_file(tensors, folder / "x.safetensors")
    return ["--lora", str(folder / "x.safetensors")]


def _missing_keys(folder: Path) -> list[str]:
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({f"{layer}.lora_A.weight": torch.zeros(2, 128)}, folder / "x.safetensors")
    return ["--lora", str(folder / "x.safetensors")]


def _nowhere(folder: Path) -> list[str]:
    return ["--erased", str(folder / "nowhere")]


def _two_sources(folder: Path) -> list[str]:
    return ["--erased", str(folder), "--lora", str(folder / "x.safetensors")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        _another_family, _another_size, _another_architecture, _not_finite, _pickle, _unknown_keys, _missing_keys,
        _nowhere, _two_sources,
    ],
)  # fmt: skip
def test_bad_input_is_three_lines_exit_1_and_writes_no_edit(
    make: Callable[[Path], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["duo", "attack", "-o", str(run), "--model", "mini", *QUICK, *make(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert len(said[said.index("Error:") :].strip().splitlines()) <= 3
    assert not list((run / "edits").glob("*/*"))


@pytest.mark.slow
def test_two_edits_of_one_name_are_refused_and_the_first_stays(erased: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    words = ["attack", "-o", str(run.folder), "--model", "mini", "--attack", "direct", "--count", "1"]
    part = tmp_path / "theirs.safetensors"
    save_file({"conv_in.weight": load_file(erased / UNET)["conv_in.weight"]}, part)
    assert duo(*words, "--unet", str(part)).returncode == 0
    before = {path: path.read_bytes() for path in run.edits.rglob("*") if path.is_file()}
    save_file({"conv_in.weight": 2 * load_file(erased / UNET)["conv_in.weight"]}, part)
    done = duo(*words, "--unet", str(part))
    assert done.returncode == 1
    assert "holds another edit theirs" in done.stderr
    assert {path: path.read_bytes() for path in run.edits.rglob("*") if path.is_file()} == before
