"""Damaged and edited files of a run: nothing damaged passes for a defence, and what is derived is made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import duo_unlearn as duo
from duo_unlearn.arena.check import check_run
from duo_unlearn.arena.findings import FindingsFile
from duo_unlearn.arena.stages import evaluate, judge
from duo_unlearn.edits.provenance import WEIGHTS
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import SampleRequest
from duo_unlearn.session import Session
from duo_unlearn.storage.files import read_tensors, write_tensors
from duo_unlearn.storage.pictures import image_fault

from ..slow import slow
from .small_run import pictures, reopen


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Session:
    shutil.copytree(evaluated, tmp_path / "run")
    return reopen(tmp_path / "run")


def test_one_flipped_byte_in_the_edit_is_no_perfect_erasure(run: Session) -> None:
    path = run.run.edit("duo") / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x7F  # the high byte of a weight
    path.write_bytes(content)
    with pytest.raises(DuoError, match="is not the file that was written"):
        evaluate(reopen(run.run.folder))
    assert any("is not the file that was written" in str(fault) for fault in check_run(run.run.folder).faults)
    # What was measured on the whole edit is not told as this one's.
    results = duo.judge(reopen(run.run.folder))
    assert {e.system for e in results.estimates} == {"original"}


def test_weights_that_are_not_finite_are_refused_with_the_right_hash_too(run: Session) -> None:
    from duo_unlearn.storage.files import sha256_of

    path = run.run.edit("duo") / WEIGHTS
    tensors, metadata = read_tensors(path)
    first = next(iter(tensors))
    tensors[first][0, 0] = float("nan")
    write_tensors(path, tensors, metadata)
    provenance = path.with_name("provenance.json")
    provenance.write_text(json.dumps({**json.loads(provenance.read_text()), "sha256": sha256_of(path)}))
    with pytest.raises(DuoError, match=r"not finite|finite"):
        evaluate(reopen(run.run.folder))


def test_an_image_whose_latents_are_not_finite_is_no_picture(run: Session) -> None:
    model = run.model
    weight = model.denoiser.get_parameter("conv_in.weight")
    before = weight.data.clone()
    weight.data[0] = float("nan")
    (image,) = model.sample([SampleRequest("a red knight", 1)], steps=2, guidance=2.0, batch=1)
    weight.data = before
    assert image_fault(image) == "its latents are not finite"
    (whole,) = model.sample([SampleRequest("a red knight", 1)], steps=2, guidance=2.0, batch=1)
    assert image_fault(whole) is None


def test_a_flat_image_is_unscored(run: Session) -> None:
    from duo_unlearn.runs.attempts import Part, attempts_of, parts_of, read_groups, write_part
    from duo_unlearn.storage.pictures import save_png

    record = next(r for r in read_groups(run.run) if r.group[:3] == ("duo", "direct", "direct"))
    (part,) = parts_of(run.run, record)
    attempt = attempts_of(run.run, record)[0]
    assert attempt.file is not None
    sha256 = save_png(Image.new("RGB", (64, 64), "black"), run.run.folder / attempt.file)
    from dataclasses import replace

    changed = [replace(attempt, sha256=sha256), *part.attempts[1:]]
    write_part(record.group.folder(run.run) / "0000.json", Part(part.key, changed, None))
    results = judge(run).results
    direct = [
        e for e in results.estimates if (e.metric, e.system, e.scenario, e.attack) == ("dsr", "duo", "direct", None)
    ]
    assert [(e.n, e.unscored) for e in direct] == [(2, 1)] * len(run.judges.there)
    assert any("flat" in str(absent["reason"]) for absent in results.absent)


def _replace_image(run: Session) -> Path:
    path = next((run.run.attempts / "duo" / "direct" / "direct").glob("*.png"))
    Image.new("RGB", (64, 64), "white").save(path)
    return path


def _edit_attempt(run: Session) -> Path:
    path = run.run.attempts / "duo" / "direct" / "direct" / "0000.json"
    path.write_text(path.read_text().replace("sword", "sward", 1))
    return path


def _edit_digit(run: Session) -> Path:
    path = run.run.results
    content = json.loads(path.read_text())
    content["estimates"][0]["value"] = 0.987
    path.write_text(json.dumps(content))
    return path


def _edit_verdict(run: Session) -> Path:
    path = next(run.run.verdicts.glob("*.json"))
    path.write_text(path.read_text().replace("false", "true", 1))
    return path


def _edit_tensors(run: Session) -> Path:
    path = next((run.run.attempts / "duo").rglob("found-*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DuoError, match="is not what the search found"):  # nor is it replayed on another run
        FindingsFile(path.with_suffix(".json")).read()
    return path


def _halve_settings(run: Session) -> Path:
    path = run.run.settings
    path.write_text(path.read_text()[: len(path.read_text()) // 2])
    return path


@pytest.mark.parametrize(
    "change", [_replace_image, _edit_attempt, _edit_digit, _edit_verdict, _edit_tensors, _halve_settings]
)
def test_a_change_of_a_finished_run_is_noticed(run: Session, change: Callable[[Session], Path]) -> None:
    assert check_run(run.run.folder).faults == []
    path = change(run)
    faults = check_run(run.run.folder).faults
    assert faults
    assert any(path.name in str(fault) for fault in faults)


def test_what_a_killed_import_left_is_no_edit(run: Session) -> None:
    (run.run.edits / ".edit-1a2b" / "mine").mkdir(parents=True)
    assert check_run(run.run.folder).faults == []
    with pytest.raises(DuoError, match="unknown system") as raised:
        run.system("mine")
    assert "edits here: duo;" in str(raised.value.hint)


@pytest.mark.parametrize("change", [_replace_image, *slow([_edit_attempt, _edit_digit, _edit_verdict])])
def test_what_was_changed_is_made_again(run: Session, change: Callable[[Session], Path]) -> None:
    before, images = run.run.results.read_bytes(), pictures(run.run.folder)
    change(run)
    evaluate(reopen(run.run.folder))
    assert run.run.results.read_bytes() == before
    assert pictures(run.run.folder) == images
    assert check_run(run.run.folder).faults == []


DERIVED = ["results.json", "run.json", "verdicts", "part", "group", "preservation"]
BROKEN = ["", "[", "[1, 2]", "{}", '{"version": 9}', "[" * 100_000]


@pytest.mark.parametrize(
    "faults",
    # Each file with a content of its own, all at once, in the fast tests; every combination alone in the slow ones.
    [
        pytest.param(dict(zip(DERIVED, BROKEN, strict=True)), id="all"),
        *(
            pytest.param({name: content}, id=f"{name}-{i}", marks=pytest.mark.slow)
            for name in DERIVED
            for i, content in enumerate(BROKEN)
        ),
    ],
)
def test_a_broken_derived_file_is_made_again(run: Session, faults: dict[str, str]) -> None:
    folder = run.run.attempts / "duo" / "direct" / "direct"
    places = {
        "results.json": run.run.results,
        "run.json": run.run.record,
        "verdicts": next(run.run.verdicts.glob("*.json")),
        "part": folder / "0000.json",
        "group": folder / "group.json",
        "preservation": run.run.preservation,
    }
    before = run.run.results.read_bytes()
    for name, content in faults.items():
        places[name].write_text(content)
    evaluate(reopen(run.run.folder))
    assert run.run.results.read_bytes() == before
    assert duo.report(run.run.folder).exists()


def test_a_run_of_the_old_form_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run" / "evaluation").mkdir(parents=True)
    (tmp_path / "run" / "settings.yaml").write_text("model: mini\n")
    for call in (lambda: reopen(tmp_path / "run"), lambda: duo.report(tmp_path / "run")):
        with pytest.raises(DuoError, match="run folder of an older form") as raised:
            call()
        assert "choose another --output" in str(raised.value.hint)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["evaluation", "settings.yaml"]


def test_the_base_is_what_it_was_after_every_system(run: Session) -> None:
    before = {name: value.clone() for name, value in run.model.denoiser.state_dict().items()}
    evaluate(run)
    after = run.model.denoiser.state_dict()
    plain = {name.replace(".base_layer", ""): value for name, value in after.items() if "lora_" not in name}
    assert all(torch.equal(plain[name], value) for name, value in before.items())
