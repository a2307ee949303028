"""Labels on disk: whole lines, the last word of each person, and what a torn or wrong line does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from duo_unlearn.errors import DuoError
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.labels import Label, append_label, read_labels

ADD = """
import sys
from pathlib import Path
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.labels import Label, append_label
for i in range(50):
    append_label(Run(Path(sys.argv[1])), Label(f"{i:064}", "yes", sys.argv[2]))
"""


def test_labels_come_back_in_order_and_each_persons_last_word_counts(run: Run) -> None:
    assert read_labels(run) == []
    given = [
        Label("a" * 64, "yes", "Ann"),
        Label("b" * 64, "no", "Ann", "no", "judge[x]@1"),
        Label("a" * 64, "broken", "Bob"),
        Label("a" * 64, "no", "Ann"),
    ]
    for label in given:
        append_label(run, label)
    assert read_labels(run) == given[1:]
    assert len(run.labels.read_text().splitlines()) == 4


def test_a_torn_last_line_is_left_out_and_told_and_the_next_label_stands_by_itself(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Label("a" * 64, "yes", "Ann"), Label("b" * 64, "no", "Ann")
    append_label(run, first)
    with run.labels.open("a") as handle:
        handle.write('{"sha256": "cc')
    assert read_labels(run) == [first]
    assert "labels.jsonl line 2 is torn and left out" in capsys.readouterr().err
    append_label(run, second)
    assert read_labels(run) == [first, second]


def test_a_line_without_its_end_is_whole_when_it_is_a_label(run: Run) -> None:
    append_label(run, Label("a" * 64, "yes", "Ann"))
    run.labels.write_text(run.labels.read_text().rstrip("\n"))
    append_label(run, Label("b" * 64, "yes", "Ann"))
    assert [label.sha256[0] for label in read_labels(run)] == ["a", "b"]


def test_processes_that_label_at_once_lose_nothing(run: Run) -> None:
    run.folder.mkdir()
    command = [sys.executable, "-c", ADD, str(run.folder)]
    started = [subprocess.Popen([*command, name]) for name in ("Ann", "Bob")]
    assert [process.wait(60) for process in started] == [0, 0]
    labels = read_labels(run)
    assert len(labels) == 100
    assert {label.labeller for label in labels} == {"Ann", "Bob"}


@pytest.mark.parametrize(
    "change",
    [
        {"label": "maybe"},
        {"labeller": " "},
        {"sha256": None},
        {"stratum": "yes"},
        {"stratum": "seen", "contract": "judge"},
        {"colour": "red"},
    ],
)
def test_a_whole_line_that_is_no_label_is_refused_with_its_number(run: Run, change: dict[str, object]) -> None:
    append_label(run, Label("a" * 64, "yes", "Ann"))
    entry = {"sha256": "b" * 64, "label": "no", "labeller": "Ann"} | change
    with run.labels.open("a") as handle:
        handle.write(json.dumps(entry) + "\n")
    with pytest.raises(DuoError, match=r"labels\.jsonl line 2") as caught:
        read_labels(run)
    assert len(str(caught.value).splitlines()) == 3


def test_what_is_no_label_is_not_written(run: Run) -> None:
    with pytest.raises(DuoError, match="names its picture"):
        append_label(run, Label("a" * 64, "yes", ""))
    assert not run.labels.exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.labels.mkdir(parents=True)
    with pytest.raises(DuoError, match="cannot write"):
        append_label(run, Label("a" * 64, "yes", "Ann"))
