"""What a run prints: where its settings are, in one line, and at its end whether the concept is erased."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from duo_unlearn.cli.main import main
from duo_unlearn.cli.tables import estimates_table
from duo_unlearn.records import Estimate

from .drawn_pairs import draw_pairs
from .small_concept import small_concept

FEW = {
    "train.max_train_steps": 1,
    "train.learning_rate": 1e-9,
    "pairs.trust": "true",
    "evaluate.prompts": 2,
    "evaluate.keep_prompts": 2,
    "evaluate.neighbour_prompts": 1,
    "evaluate.inversion_prompts": 0,
    "evaluate.steps": 4,
}


def command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["duo", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0


def test_no_broken_picture_is_told_apart_from_none_that_was_judged(capsys: pytest.CaptureFixture[str]) -> None:
    def estimate(metric: str, system: str, value: float) -> Estimate:
        return Estimate(metric, system, "direct", None, None, value, 0.0, 1.0, 4, 0, "judge", (0,), "")

    estimates_table([
        estimate("dsr", "original", 0.0), estimate("dsr", "duo", 0.5), estimate("broken", "duo", 0.25),
        estimate("detected", "uce", 1.0), estimate("refused", "filter", 0.25),
    ])  # fmt: skip
    rows = [line.split("│")[2:-2] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert cells["broken"] == ["none", "25.0% [0.0%, 100.0%] 4", "none", "–"]  # nothing of the filter's was judged
    assert cells["refused"] == ["none", "none", "none", "25.0% [0.0%, 100.0%] 4"]
    assert cells["dsr"] == ["0.0% [0.0%, 100.0%] 4", "50.0% [0.0%, 100.0%] 4", "–", "–"]


@pytest.mark.slow
def test_a_run_that_did_nothing_ends_as_not_erased_and_says_where_its_settings_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_pairs(tmp_path / "mine", 3)
    run = tmp_path / "run"
    given = ["--concept", small_concept(tmp_path), "-o", str(run), "--pairs", str(tmp_path / "mine")]
    given += [word for key, value in FEW.items() for word in ("--set", f"{key}={value}")]
    command(["erase", *given], monkeypatch)
    out, err = capsys.readouterr()
    first, *_, last = err.splitlines()
    assert first.startswith("family mini; recipe recommended; recommended settings: ")
    assert first.endswith(f"; all settings → {run / 'settings.yaml'}, or `duo check`")
    assert "prior_weight:" not in err
    assert last.startswith("not erased: sword not seen in ")
    assert last.endswith(f"; report: {run / 'report.html'}")
    assert "cost: " in last
    assert "value [95 % interval] n" in out
    assert (run / "settings.yaml").exists()
    command(["check", *given], monkeypatch)
    assert "\ntrain:\n" in capsys.readouterr().out  # in full, as a settings file


def test_python_runs_the_package_as_the_command() -> None:
    said = subprocess.run([sys.executable, "-m", "duo_unlearn", "--version"], capture_output=True, check=True).stdout
    assert said.startswith(b"duo_unlearn ")
