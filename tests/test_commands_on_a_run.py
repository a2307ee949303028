"""Commands on a run folder: what they print, what they refuse, and what they do without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import duo_unlearn as duo
from duo_unlearn.arena.bank import fill_bank
from duo_unlearn.cli.main import main, run_command
from duo_unlearn.cli.options import system_names
from duo_unlearn.errors import DuoError
from duo_unlearn.pairs.manifest import load_pairs, save_manifest
from duo_unlearn.records import Pair
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.results import Results
from duo_unlearn.session import Session
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.settings.tree import write_settings
from duo_unlearn.storage.files import write_json
from duo_unlearn.storage.pictures import save_png
from duo_unlearn.system import System


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder of a name with a space, with settings and one pair."""
    run = Run(tmp_path / "a run")
    write_settings(run.settings, resolve_settings({"concept": "sword", "train": {"beta": 31}}))
    unsafe, safe = "unsafe/0.png", "safe/0.png"
    sha256 = [save_png(Image.new("RGB", (8, 8), "red"), run.pairs / file) for file in (unsafe, safe)]
    pair = Pair("0", unsafe, safe, sha256[0], sha256[1], "a king with a sword", "a king")
    save_manifest(run.pairs, concept="sword", settings={}, pairs=[pair])
    return run.folder


def test_a_check_of_a_run_folder_is_json_where_it_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(["check", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out) == {"files": 2, "faults": []}
    (folder / "run.json").write_text("{")
    monkeypatch.setattr(sys, "argv", ["duo", "check", str(folder), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert "run.json is not valid JSON" in fault["problem"]
    assert fault["hint"]


def test_faults_of_settings_are_json_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["check", "-o", str(tmp_path / "run"), "--json"]
    monkeypatch.setattr(sys, "argv", ["duo", *given, "--concept", "swrod", "--set", "train.rank=0"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr()
    problems = [fault["problem"] for fault in json.loads(said.out)["faults"]]
    assert problems == ["the settings have faults", "unknown concept"]
    assert not said.err
    run_command(given)
    assert json.loads(capsys.readouterr().out)["faults"] == []


def test_settings_beside_a_run_folder_are_checked_on_top_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(["check", str(folder), "--rank", "3"])
    said = capsys.readouterr()
    assert "beta: 31.0" in said.out
    assert "rank: 3" in said.out
    assert "no fault found" in said.err
    with pytest.raises(DuoError, match="two run folders are named"):
        run_command(["check", str(folder), "-o", str(folder.parent / "other")])


def test_a_drop_names_the_command_that_makes_the_edit_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(folder / "edits" / "duo" / "provenance.json", {"pairs": [["a", "b"]]})
    run_command(["drop", str(folder), "0", "--reason", "cut off"])
    assert f"`duo train -o '{folder}'`" in capsys.readouterr().err
    with pytest.raises(DuoError, match="has no reason"):
        run_command(["drop", str(folder), "0", "--undo", "--reason", "not cut off"])
    assert [pair.reason for pair in load_pairs(folder / "pairs")] == ["cut off"]


def test_a_page_is_written_without_torch(folder: Path) -> None:
    code = "import sys; from duo_unlearn.cli.main import run_command; run_command(sys.argv[1:])"
    code += "; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, "report", str(folder)], check=True)
    assert (folder / "report.html").is_file()


def test_a_count_of_prompts_beside_a_file_of_prompts_is_refused(folder: Path) -> None:
    (folder / "mine.txt").write_text("a king\na queen\n")
    with pytest.raises(DuoError, match="every prompt of a file is attacked"):
        run_command(["attack", str(folder), "--prompts", str(folder / "mine.txt"), "--count", "1"])


def test_files_of_another_kind_than_is_written_are_refused(folder: Path) -> None:
    with pytest.raises(DuoError, match="a bank is a safetensors file") as caught:
        fill_bank(duo.open_run(folder, quiet=True), System(), ["unlearndiffatk"], 1, folder / "b.pt")
    assert caught.value.hint == "-o b.safetensors"
    with pytest.raises(DuoError, match="as one PNG"):
        run_command(["mini", "scenes", "-o", str(folder / "scenes.jpg"), "--count", "1"])
    assert {"b.pt", "bank", "scenes.jpg"}.isdisjoint(path.name for path in folder.iterdir())


def test_a_guard_is_put_behind_the_systems_that_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str] | None] = []

    def evaluate(_run: Session, names: list[str] | None, _say: object) -> Results:
        asked.append(names)
        return Results("sword", "mini", 0, quick=False, systems=[], estimates=[], absent=[])

    monkeypatch.setattr("duo_unlearn.pipeline.evaluate", evaluate)
    command = ["evaluate", "-o", str(folder), "--guard", "sld"]
    run_command([*command, "--system", "duo", "--system", "uce"])
    run_command(command)
    assert asked == [["duo+sld", "uce+sld"], None]


def test_a_guard_of_a_run_on_a_floor_is_behind_both(tmp_path: Path) -> None:
    run = Session(resolve_settings({"concept": "sword", "recipe": "robust", "output": str(tmp_path)}))
    assert system_names(run, None, ["sld"], {}) == ["uce+robust-duo+sld"]
