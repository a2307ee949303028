"""Where an export is written: a folder that is there, one that cannot be, and a disk that is full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.cli.main import run_command
from duo_unlearn.errors import DuoError
from duo_unlearn.export.export import export
from duo_unlearn.runs.folder import Run

from ..families import small_models as small
from .edited_run import run_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a guard in its settings, which no test changes."""
    folder = run_folder("mini", tmp_path_factory.mktemp("places") / "run")
    written = Run(folder).settings.read_text()
    Run(folder).settings.write_text(written.replace('{"model"', '{"guard": ["negative-prompt"], "model"', 1))
    return folder


def test_a_folder_that_is_there_stays_the_same_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tmp_path.stat().st_ino
    (tmp_path / ".part").mkdir()  # of an export that was killed
    (tmp_path / ".part" / "half").write_text("half")
    monkeypatch.chdir(tmp_path)
    done = duo.export(run, ".", "diffusers")
    assert tmp_path.stat().st_ino == before
    names = {path.name for path in Path().iterdir()}  # as a shell that stands there sees it
    assert names >= {"README.md", "erasure.intoto.json", "pytorch_lora_weights.safetensors"}
    assert ".part" not in names
    assert done.guards == ("negative-prompt",)
    assert not duo.verify(tmp_path, device="cpu").has("differs")


def test_an_export_that_fails_leaves_a_folder_empty(run: Path, tmp_path: Path) -> None:
    def refuse(_folder: Path) -> None:
        raise DuoError("no")

    with pytest.raises(DuoError, match="no"):
        export(run, tmp_path, "diffusers", check=refuse)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_is_told_before_anything_is_sampled(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    places = [tmp_path / "file" / "out", tmp_path / ("a" * 252)]
    for place in places:
        with pytest.raises(DuoError, match="cannot write") as caught:
            export(run, place, "merged")
        assert str(place)[:100] in caught.value.problem
    assert "sample" not in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_an_export_tells_that_it_names_a_folder_of_this_machine(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(small.sd1(tmp_path / "a model"))
    for source, is_told in ((run_folder(model, tmp_path / "run"), True), (run, False)):
        run_command(["export", str(source), "-o", str(tmp_path / f"out-{is_told}"), "--device", "cpu"])
        assert (f"names its base as it lies here, {model}:" in capsys.readouterr().err) == is_told


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of a file's size")
def test_a_whole_model_that_does_not_fit_is_told(run: Path, tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from duo_unlearn.cli.main import main\n"
        "main()"
    )
    words = ["export", str(run), "-o", str(tmp_path / "out"), "--format", "merged", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Got: File too large" in done.stderr
    assert not list(tmp_path.iterdir())
