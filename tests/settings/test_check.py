"""`duo check` finds every fault of a run before it starts, all at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import duo_unlearn as duo
from duo_unlearn.errors import DuoError
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.pairs.manifest import save_manifest
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.check import check_family, check_whole_weights, check_wrap_weights, find_faults
from duo_unlearn.settings.tree import resolve, write_settings
from duo_unlearn.storage.files import read_tensors, write_tensors

from ..drawn_pairs import draw_pairs


def faults(given: dict[str, Any], file: Path | None = None) -> str:
    check = find_faults(given, file)
    assert (check.settings is None) == bool(check.faults)
    assert all(len(str(fault).splitlines()) <= 3 for fault in check.faults)
    return "\n\n".join(map(str, check.faults))


def test_a_run_without_faults_gives_its_settings(tmp_path: Path) -> None:
    check = find_faults({"output": str(tmp_path / "run"), "seed": 4})
    assert check.faults == []
    assert check.settings is not None
    assert (check.settings.seed, check.settings.train.captions) == (4, "unsafe")  # the concept's recommendation
    assert not (tmp_path / "run").exists()


def test_faults_of_every_kind_are_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "pairs" / "unsafe").mkdir(parents=True)
    said = faults(
        {
            "model": str(tmp_path / "no-model"),
            "concept": "swrod",
            "output": str(tmp_path / "file"),
            "pairs": {"folder": str(tmp_path / "pairs")},
            "evaluate": {"reference": str(tmp_path / "no-images")},
        }
    )
    for part in ("no model folder", "unknown concept", "no folder safe/", "holds no images"):
        assert part in said


def test_model_and_concept_are_checked_although_the_settings_have_faults(tmp_path: Path) -> None:
    said = faults({"model": str(tmp_path / "absent"), "concept": "swrod", "seed": -1, "train": {"betta": 1}})
    for part in ("seed: ", "train.betta", "no model folder", "unknown concept"):
        assert part in said
    said = faults({"model": "n" * 300, "concept": "swrod"})
    assert "model: " in said
    assert "unknown concept" in said


def test_half_of_a_runs_settings(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    write_settings(path, resolve({}))
    path.write_bytes(path.read_bytes()[:300])
    said = faults({"output": str(tmp_path), "concept": "swrod"})
    assert "not as they were written" in said
    assert "unknown concept" in said


def test_a_settings_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: " + "[" * 10_000)
    assert "not valid YAML" in faults({"output": str(tmp_path / "run")}, tmp_path / "a.yaml")


@pytest.mark.parametrize("name", ["train/duo/metrics.jsonl", "results.json", "settings.yaml", "run.json"])
def test_a_folder_in_a_files_place(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    assert str(tmp_path / name) in faults({"output": str(tmp_path)})


@pytest.mark.parametrize("name", ["pairs", "edits", "attempts"])
def test_a_file_in_a_folders_place(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert "must be a folder" in faults({"output": str(tmp_path)})


def test_an_output_that_is_a_file_and_one_that_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "is a file" in faults({"output": str(tmp_path / "file")})
    with Run(tmp_path / "run").lock():
        assert "in use by another run" in faults({"output": str(tmp_path / "run")})
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert f"a link to {tmp_path / 'nowhere'}, which is not there" in faults({"output": str(tmp_path / "link")})
    with pytest.raises(DuoError, match="which is not there\nTry: choose another"), Run(tmp_path / "link").lock():
        pass


def test_a_run_folder_of_the_older_form(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    assert "older form" in faults({"output": str(tmp_path)})


def test_a_detector_without_its_weights(tmp_path: Path) -> None:
    concept = {
        "name": "hat",
        "summary": "A hat.",
        "detector": {"name": "clip", "labels": ["unsafe=a hat", "safe=a head", f"model={tmp_path / 'no-clip'}"]},
        "pairs": [{"unsafe": "a king with a hat", "safe": "a king", "count": 2}],
    }
    (tmp_path / "hat.yaml").write_text(yaml.safe_dump(concept))
    assert "no-clip" in faults({"output": str(tmp_path / "run"), "concept": str(tmp_path / "hat.yaml")})


def test_swapped_pairs_are_no_fault_here_but_identical_ones_are(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "mine", 2)
    given = {"output": str(tmp_path / "run"), "pairs": {"folder": str(tmp_path / "mine")}}
    assert faults(given) == ""
    shutil.copy(tmp_path / "mine" / "unsafe" / "1.png", tmp_path / "mine" / "safe" / "1.png")
    assert "the same image" in faults(given)
    shutil.rmtree(tmp_path / "mine")
    assert "there is no" in faults(given)
    # A run that has them needs them there no more.
    settings = {"source": str(tmp_path / "mine")}
    save_manifest(tmp_path / "run" / "pairs", concept=None, settings=settings, pairs=[])
    assert faults(given) == ""


@pytest.fixture
def mini_folder(tmp_path: Path) -> Path:
    """The mini model's weights as a diffusers folder of the user's own."""
    folder = tmp_path / "model"
    shutil.copytree(weights_folder(), folder)
    return folder


def test_a_model_whose_weights_are_not_finite(mini_folder: Path, tmp_path: Path) -> None:
    given = {"model": str(mini_folder), "output": str(tmp_path / "run")}
    path = next((mini_folder / "unet").glob("*.safetensors"))
    tensors, metadata = read_tensors(path)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel() > 4)
    tensors[name].view(-1)[3] = torch.nan
    write_tensors(path, tensors, metadata)
    said = faults(given)
    assert "finite" in said
    assert name in said


@pytest.mark.parametrize("content", ["", "[]", "null"])
def test_a_part_without_a_configuration(mini_folder: Path, tmp_path: Path, content: str) -> None:
    (mini_folder / "unet" / "config.json").write_text(content)
    said = faults({"model": str(mini_folder), "output": str(tmp_path / "run")})
    assert "unet" in said


def test_two_faults_of_a_model_are_two_faults(mini_folder: Path, tmp_path: Path) -> None:
    (mini_folder / "unet" / "config.json").write_text(json.dumps([]))
    (mini_folder / "scheduler" / "scheduler_config.json").unlink()
    check = find_faults({"model": str(mini_folder), "output": str(tmp_path / "run")})
    assert len(check.faults) >= 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"eraser": "uce"}, "the eraser uce cannot be used here"),
        ({"guard": ["negative-prompt"]}, "the guard negative-prompt cannot be used here"),
    ],
)
def test_what_a_family_cannot_have_is_found_before_a_run_starts(given: dict[str, Any], said: str) -> None:
    with pytest.raises(DuoError, match=said):
        check_family(resolve(given), "flux")
    check_family(resolve(given), "mini")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"device": "cpu", "train": {"mixed_precision": "fp16"}}, "fp16 training needs a GPU"),
        ({"device": "abacus"}, "the device cannot be used"),
    ],
)
def test_a_device_that_cannot_train_is_found_before_pairs_are_made(
    given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    asked = {**given, "output": str(tmp_path / "run")}
    assert said in faults(asked)
    with pytest.raises(DuoError, match=said):
        duo.erase(duo.open_run(tmp_path / "run", settings=given, quiet=True))
    assert not (tmp_path / "run" / "pairs").exists()
    # A closed form trains nothing, so the precision of a training does not matter to it.
    if "train" in given:
        assert find_faults({**asked, "eraser": "uce"}).faults == []


def test_what_a_recipe_chooses_is_checked(tmp_path: Path) -> None:
    robust = {"recipe": "robust", "output": str(tmp_path / "run")}
    assert "not trained in fp16" in faults({**robust, "erasers": {"robust-duo": {"mixed_precision": "fp16"}}})
    assert "it makes an adapter" in faults({**robust, "floor": "spm"})
    found = find_faults({**robust, "floor": "hirm"})  # DUO alone could have no floor
    assert found.settings is not None
    assert (found.settings.eraser, found.settings.floor) == ("robust-duo", "hirm")


def test_options_of_duo_are_no_options_of_another_eraser(tmp_path: Path) -> None:
    given = {"output": str(tmp_path / "run"), "eraser": "uce"}
    said = faults({**given, "train": {"rank": 4, "mixed_precision": "no"}})
    assert "the eraser uce reads no option of DUO's training\nGot: train.rank\n" in said
    assert "no option of DUO's" in faults({**given, "eraser": "robust-duo", "train": {"beta": 4}})
    for fine in (
        given,
        {**given, "eraser": "duo", "train": {"rank": 4}},
        {**given, "train": {"mixed_precision": "no"}},
    ):
        assert find_faults(fine).faults == []
    # Nor is it a fault to say again what the run has, e.g. by the command that made its edit by DUO.
    write_settings(tmp_path / "run" / "settings.yaml", resolve({"train": {"rank": 4}}))
    assert find_faults({**given, "train": {"rank": 4}}).faults == []
    assert "no option of DUO's" in faults({**given, "train": {"rank": 5}})
    # A settings file may describe a run whole, whoever reads what.
    (tmp_path / "run.yaml").write_text("eraser: uce\ntrain: {rank: 4}\n")
    assert find_faults({"output": str(tmp_path / "run")}, tmp_path / "run.yaml").faults == []


@pytest.mark.parametrize(("attack_on", "fault"), [("weights", "bf16"), ("adapter", None)])
def test_a_wrap_that_moves_weights_needs_them_whole(attack_on: str, fault: str | None) -> None:
    wraps = {"meta-unlearning": {"attack_on": attack_on}}
    settings = resolve({"wrap": "meta-unlearning", "wraps": wraps, "train": {"mixed_precision": "bf16"}})
    check_wrap_weights(settings, torch.device("cpu"))
    if fault is None:
        check_wrap_weights(settings, torch.device("cuda"))
        return
    with pytest.raises(DuoError, match="needs them in float32") as raised:
        check_wrap_weights(settings, torch.device("cuda"))
    assert raised.value.got == fault


@pytest.mark.parametrize(("content", "said"), [(None, "no such bank"), (b"\x00" * 100, "safetensors")])
def test_a_bank_that_cannot_be_read_is_found_before_pairs_are_made(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    bank = tmp_path / "bank"
    if content is not None:
        bank.write_bytes(content)
    captions = {"unsafe": 0.8, "empty": 0, "random": 0, "search": 0, "bank": 0.2}
    given = {"output": str(tmp_path / "run"), "eraser": "robust-duo"}
    found = find_faults({**given, "erasers": {"robust-duo": {"bank": str(bank), "captions": captions}}})
    assert [said in str(fault) for fault in found.faults] == [True]
    run = duo.open_run(tmp_path / "run", settings={
        "eraser": "robust-duo", "erasers.robust-duo.bank": str(bank), "erasers.robust-duo.captions": captions,
    })  # fmt: skip
    with pytest.raises(DuoError, match=said):
        duo.erase(run)
    assert not run.run.pairs.exists()


@pytest.mark.parametrize(
    "given",
    [
        {"erasers": {"esd-u": {"sampling_steps": 501}}},
        {"erasers": {"stereo": {"sampling_steps": 1000}}},
        {"erasers": {"robust-duo": {"keep_steps": 501}}},
        {"wraps": {"meta-unlearning": {"sampling_steps": 501}}},
    ],
)
def test_more_sampling_steps_than_a_schedule_has_are_a_fault(given: dict[str, Any]) -> None:
    with pytest.raises(DuoError, match="less than or equal to 500"):
        resolve(given)


@pytest.mark.parametrize("given", [{"eraser": "esd-u"}, {"eraser": "robust-duo", "floor": "advunlearn"}])
def test_whole_weights_in_half_precision_are_told_before_pairs_are_made(given: dict[str, Any]) -> None:
    settings = resolve({**given, "train": {"mixed_precision": "bf16"}})
    check_whole_weights(settings, torch.device("cpu"))
    check_whole_weights(resolve({"eraser": "robust-duo", "floor": "uce"}), torch.device("cuda"))
    with pytest.raises(DuoError, match="trains whole weights") as raised:
        check_whole_weights(settings, torch.device("cuda"))
    assert raised.value.got == "bf16"
