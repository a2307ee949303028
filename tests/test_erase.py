"""The whole command on the mini model, at small counts: what it writes, that it skips what is done, bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from duo_unlearn.cli.main import main, run_command
from duo_unlearn.edits.provenance import WEIGHTS
from duo_unlearn.errors import DuoError
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.pairs.own_pairs import import_pairs, load_pairs
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.settings.tree import write_settings
from duo_unlearn.storage.files import write_json

from .command import duo
from .drawn_pairs import draw_pairs
from .small_concept import small_concept

SMALL = {
    "pairs.scale": 0.1,
    "train.max_train_steps": 20,
    "evaluate.prompts": 4,
    "evaluate.keep_prompts": 4,
    "evaluate.neighbour_prompts": 2,
    "evaluate.inversion_prompts": 2,
    "evaluate.inversion_steps": 2,
    "evaluate.steps": 6,
}


def options(settings: Mapping[str, object]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_erase_runs_all_stages_then_skips_them_and_moves_the_margin(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    words = ["erase", "-o", str(run.folder), "--concept", small_concept(tmp_path), *options(SMALL)]
    first = duo(*words)
    assert first.returncode == 0, first.stderr
    results = json.loads(run.results.read_text())
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in results["estimates"])
    dsr = {(e["scenario"], e["attack"], e["system"]) for e in results["estimates"] if e["metric"] == "dsr"}
    assert {("direct", None, "original"), ("synonym", None, "duo"), ("indirect", None, "duo")} <= dsr
    assert ("direct", "concept-inversion", "duo") in dsr
    lines = [json.loads(line) for line in run.metrics("duo").read_text().splitlines()]
    assert lines[-1]["unsafe_margin"] - lines[-1]["safe_margin"] > 0
    assert "<script" not in run.report.read_text()
    edit = run.edit("duo") / WEIGHTS
    weights = edit.read_bytes()
    second = duo(*words)
    assert second.returncode == 0, second.stderr
    for stage in ("pairs", "train", "evaluate"):
        assert f"{stage}: already done" in second.stderr
    assert edit.read_bytes() == weights
    assert "no fault found" in duo("check", str(run.folder)).stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_another_eraser_and_a_guard_are_measured_beside_it_in_the_same_folder(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    words = ["erase", "-o", str(run.folder), "--concept", small_concept(tmp_path), *options(SMALL)]
    for more in ([], ["--eraser", "uce"], ["--eraser", "duo", "--guard", "negative-prompt"]):
        done = duo(*words, *more)
        assert done.returncode == 0, done.stderr
    done = duo("evaluate", "-o", str(run.folder), "--system", "uce", "--system", "duo+negative-prompt")
    assert done.returncode == 0, done.stderr
    results = json.loads(run.results.read_text())
    systems = {e["system"] for e in results["estimates"] if (e["metric"], e["scenario"]) == ("dsr", "direct")}
    assert systems == {"original", "duo", "uce", "duo+negative-prompt"}
    page = run.report.read_text()
    assert all(name in page for name in systems)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_local_folder_with_v_prediction_and_own_pairs(tmp_path: Path) -> None:
    """The way of a Stable Diffusion 2 user: a diffusers folder, a v-prediction scheduler, pairs without words."""
    model, mine, run = tmp_path / "sd2-small", tmp_path / "mine", Run(tmp_path / "run")
    shutil.copytree(weights_folder(), model)
    scheduler = model / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": "v_prediction"}))
    draw_pairs(mine, 6)
    small = {**SMALL, "train.learning_rate": 2e-3, "train.prior_weight": 1e4, "train.beta": 1, "evaluate.steps": 3}
    words = ["erase", "--model", str(model), "--concept", small_concept(tmp_path), "--pairs", str(mine)]
    done = duo(*words, "-o", str(run.folder), *options(small))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in run.metrics("duo").read_text().splitlines()]
    assert lines[0]["preference"] == pytest.approx(0.693147, abs=1e-5)
    assert sum(x["unsafe_margin"] - x["safe_margin"] for x in lines[-5:]) > 0
    assert run.report.exists()
    assert (run.edit("duo") / WEIGHTS).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "--set", "train.betta=3"], "did you mean 'train.beta'"),
        (["check", "--set", "train.beta=big"], "train.beta"),
        (["check", "--concept", "swrod"], "unknown concept"),
        (["erase", "--model", "{tmp}/empty"], "not a diffusers model"),
        (["erase", "--model", "{tmp}/nowhere"], "no model folder"),
        (["train", "-o", "{tmp}/new"], "holds no pairs"),
        (["erase", "-o", "{tmp}/new", "--workers", "0"], "--workers takes a number"),
        (["pairs", "-o", "{tmp}/new", "--workers", "many"], "--workers takes a number"),
        (["report", "{tmp}/nowhere"], "no run folder\nGot: no such folder"),
        (["report", "{tmp}/empty"], "no run folder\nGot: no settings.yaml"),
        (["status", "{tmp}/runs/sword/settings.yaml"], "Got: a file\nTry: its run folder, {tmp}/runs/sword\n"),
        (["attack", "{tmp}/runs"], "no settings.yaml in it\nTry: a run folder in it, e.g. {tmp}/runs/sword\n"),
        (["judge", "{tmp}/empty"], "\nTry: run `duo erase` first\n"),
        (["erase", "{tmp}/runs/sword", "-o", "{tmp}/new"], "two run folders are named\nGot: {tmp}/runs/sword and -o"),
        (["attack", "{tmp}/runs/sword", "-o", "{tmp}/new"], "two run folders are named"),
        (["compose", "{tmp}/nowhere", "{tmp}/empty", "-o", "{tmp}/new"], "no edit in {tmp}/nowhere\nGot: no such file"),
        (["sample", " "], "a prompt is empty"),
        (["verify", "{tmp}/empty", "--base", "{tmp}/nowhere"], "there is no model folder {tmp}/nowhere\nTry: "),
        (["verify", "{tmp}/empty", "--concept", "mine.yaml"], "--concept is for --remeasure alone"),
        (["reproduce", "mini-sword", "-o", "{tmp}/runs/sword"], "runs/sword is a run folder\nGot: settings.yaml in it"),
    ],
)
def test_bad_input_is_three_lines_and_exit_1(
    tmp_path: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    write_settings(tmp_path / "runs" / "sword" / "settings.yaml", resolve_settings({"concept": "sword"}))
    monkeypatch.setattr(sys, "argv", ["duo", *(word.format(tmp=tmp_path) for word in words)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.format(tmp=tmp_path) in printed
    assert not list((tmp_path / "empty").iterdir())
    assert words[0] == "train" or not (tmp_path / "new").exists()
    lines = printed[printed.index("Error:") :].strip().splitlines()
    assert len(lines) <= 3


def test_drop_leaves_pairs_out_and_undo_takes_them_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def drop(*words: str) -> str:
        run_command(["drop", str(tmp_path / "run"), *words])
        return capsys.readouterr().err

    draw_pairs(tmp_path / "mine", 3)
    import_pairs(tmp_path / "mine", tmp_path / "run" / "pairs", quiet=True)
    names = [pair.name for pair in load_pairs(tmp_path / "run" / "pairs")]
    assert drop(names[0], names[2], "--reason", "blurred") == "pairs: 1 of 3 kept\n"
    pairs = load_pairs(tmp_path / "run" / "pairs")
    assert [pair.reason for pair in pairs] == ["blurred", None, "blurred"]
    seen = [[pair.unsafe_sha256, pair.safe_sha256] for pair in pairs[1:]]
    write_json(tmp_path / "run" / "edits" / "uce" / "provenance.json", {"pairs": seen})
    assert drop(names[2], "--undo") == "pairs: 2 of 3 kept\n"  # the edit is of these two
    assert "3 of 3 kept\nthe edit uce of other pairs is kept" in drop(names[0], "--undo")
    with pytest.raises(DuoError, match="no such pair"):
        drop("p99")


def test_check_reports_every_fault_at_once(tmp_path: Path) -> None:
    done = duo("check", "--model", str(tmp_path / "nowhere"), "--concept", "swrod", "--set", "train.rank=0")
    assert done.returncode == 1
    assert done.stderr.count("Error:") == 3


@pytest.mark.slow
def test_a_settings_file_is_named_and_flags_come_on_top(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("train: {beta: 30, rank: 8}\n")
    done = duo("check", str(tmp_path / "run.yaml"), "--rank", "4", "-o", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "beta: 30" in done.stdout
    assert "rank: 4" in done.stdout
    (tmp_path / "run.yaml").write_text("train: {betta: 30}\n")
    assert "did you mean 'train.beta'" in duo("check", str(tmp_path / "run.yaml")).stderr


@pytest.mark.slow
def test_a_run_folder_may_be_named_in_place_of_its_settings_file(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "mine", 2)
    given = ["--pairs", str(tmp_path / "mine"), "--trust-pairs"]
    assert duo("pairs", "-o", str(tmp_path / "run"), "--seed", "7", *given).returncode == 0
    again = duo("pairs", str(tmp_path / "run"))
    assert again.returncode == 0, again.stderr
    assert "pairs: already done, 2 of 2 kept" in again.stderr
    other = duo("pairs", str(tmp_path / "run"), "--seed", "8")
    assert "holds another run" in other.stderr


@pytest.mark.slow
def test_a_pickle_only_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    for part in ("unet", "vae", "text_encoder"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
        (tmp_path / part / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    done = duo("check", "--model", str(tmp_path))
    assert done.returncode == 1
    assert "a pickle that could run code" in done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "cli.main", "settings.check", "concepts.store", "report.read", "attacks.registry", "erasers.registry",
        "guards.registry", "detectors.registry", "families.registry", "export.registry",
    ],
)  # fmt: skip
def test_what_needs_no_torch_imports_none(module: str) -> None:
    code = f"import sys; import duo_unlearn.{module}, duo_unlearn; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_a_word_it_shows_its_help_and_begins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = duo("erase")
    assert "Erase a concept: pairs, edit, evaluation, report." in ran.stdout + ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_says_what_the_command_does() -> None:
    assert "Erase a concept" in duo("--help").stdout


@pytest.mark.parametrize(
    ("command", "names"),
    [pytest.param("erasers", {"duo", "uce"}, marks=pytest.mark.slow), ("guards", {"negative-prompt"})],
)
def test_erasers_and_guards_are_listed_as_json(command: str, names: set[str]) -> None:
    rows = {row["name"]: row for row in json.loads(duo(command, "--json").stdout)}
    assert names <= set(rows)
    assert all("mini" in row["families"] for row in rows.values())
    assert all(name in duo(command).stdout for name in names)


def test_models_list_as_json() -> None:
    rows = {row["family"]: row for row in json.loads(duo("models", "--json").stdout)}
    assert set(rows) == {"mini", "sd1", "sd2", "sdxl", "sd3", "flux", "flux2", "flux2-klein", "qwen-image", "z-image"}
    assert "nudity" in rows["sd1"]["settings_for"]
    assert rows["sd1"]["training_gb"] < 6
    assert "FLUX.1" in duo("models").stdout


def test_concepts_list_as_json() -> None:
    assert {"sword", "balloon"} <= {row["name"] for row in json.loads(duo("concepts", "list", "--json").stdout)}
