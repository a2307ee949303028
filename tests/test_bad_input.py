"""What the arena cannot do is told in three lines, and the command ends with 1."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

import duo_unlearn as duo
from duo_unlearn.arena.plans import AttackPlan
from duo_unlearn.arena.stages import check_attack
from duo_unlearn.cli.main import main
from duo_unlearn.concepts.store import concept_path
from duo_unlearn.errors import DuoError
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.settings.tree import write_settings
from duo_unlearn.storage.files import write_json
from duo_unlearn.system import System

ERASE = ["erase", "--concept", "sword", "-o", "RUN"]
SD3 = "stabilityai/stable-diffusion-3-medium-diffusers"
"""A hub id tells its family by its words, and nothing is fetched for what the family cannot have."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has nothing yet, and a file of prompts."""
    folder = tmp_path_factory.mktemp("bad")
    write_settings(folder / "run" / "settings.yaml", resolve_settings({"concept": "sword"}))
    (folder / "mine.csv").write_text("prompt,category\na sword,cutlery\n")
    return folder


NOTICES = ("family ", "run: ", "locks are ", "DUO_LOCKS=")
"""What is told before: the family of a model, and of locks that are forced to be files."""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [*ERASE, "--guard", "negative-prompt", "--guard", "inverted-negative"],
            [
                "the settings have faults",
                "these guards exclude each other: negative-prompt and inv",
                "duo check --help",
            ],
        ),
        (
            [*ERASE, "--model", SD3, "--eraser", "uce"],
            ["the eraser uce cannot be used here", "no cross-attention", "duo erasers"],
        ),
        (
            [*ERASE, "--eraser", "uce", "--wrap", "meta-unlearning"],
            ["uce cannot be wrapped in meta-unlearning", "closed form", "--set wrap=null"],
        ),
        (
            [*ERASE, "--eraser", "uce", "--rank", "8"],
            ["the eraser uce reads no option of DUO's training", "train.rank", "an option of erasers.uce"],
        ),
        (
            [*ERASE, "--guard", "output-filter", "--set", "guards.output-filter.threshold=2"],
            ["the threshold of the detector cannot be used", "2", "e.g. 0.5 or 0.95"],
        ),
        (
            ["attack", "run", "--attack", "direct", "--system", "negative-prompt", "--prompts", "mine.csv"],
            ["mine.csv, line 2, names an unknown category", "cutlery", "one of: pornography"],
        ),
        # What needs pairs is told before they are made.
        (
            ["attack", "run", "--attack", "soft-prompt", "--system", "negative-prompt", "--prompts", "mine.csv"],
            ["mine.csv, line 2, names an unknown category", "cutlery", "one of: pornography"],
        ),
        (
            ["attack", "run", "--system", "negative-prompt", "--replay", "nowhere"],
            ["nowhere is no run folder", "no such folder", "--replay RUN"],
        ),
        (
            ["arena", "run", "--system", "duo+sld+sld"],
            ["a system holds each edit and guard once", "duo+sld+sld", "name sld once"],
        ),
        # Options that would do nothing.
        (
            ["arena", "run", "--attack", "p4d", "--count", "0"],
            ["without a prompt nothing is attacked", "--attack with --count 0", "a --count above 0"],
        ),
        (
            ["arena", "run", "--system", "duo", "--aware"],
            ["a search is aware of guards alone", "no guard in duo", "leave --aware out"],
        ),
        (
            ["sweep", "run", "--beta", "9", "--preset", "paper"],
            ["a sweep attacks with what is named alone", "without --attack", "name an attack: --attack"],
        ),
        (
            ["arena", "run", "--preset", "paper", "--count", "0"],
            ["without a prompt nothing is attacked", "--preset with --count 0", "a --count above 0"],
        ),
        (
            ["compose", "run", "run", "-o", "both", "--no-measure", "--prompts", "7"],
            ["nothing is measured", "--prompts 7 with --no-measure", "name one of them"],
        ),
        (["verify", "run", "--seed", "3"], ["--seed is for --remeasure alone", "no --remeasure", "--remeasure 20"]),
        (
            [*ERASE, "--set", "evaluate.judges=[mini-judge-b,mini-judge-b]"],
            ["the settings have faults", "evaluate.judges: mini-judge-b is named twice", "duo check --help"],
        ),
    ],
    ids=[
        "guards",
        "family",
        "wrap",
        "option",
        "threshold",
        "category",
        "pairs",
        "replay",
        "arena",
        "no prompt",
        "aware",
        "sweep",
        "budget",
        "compose",
        "verify",
        "judges",
    ],
)
def test_it_is_told_in_three_lines(
    words: list[str],
    said: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["duo", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(NOTICES)]
    assert [line.partition(": ")[0] for line in lines] == ["Error", "Got", "Try"]
    assert all(part in line for part, line in zip(said, lines, strict=True)), lines
    assert not (folder / "RUN").exists()
    assert not (folder / "run" / "pairs").exists()
    assert not (folder / "run" / "run.json").exists()  # nor was a prompt file noted


def test_an_attack_on_a_run_of_another_concept_is_told_by_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_settings(tmp_path / "settings.yaml", resolve_settings({"concept": "sword"}))
    write_json(tmp_path / "run.json", {"concept": "sword", "seed": 0})
    monkeypatch.setattr(sys, "argv", ["duo", "attack", str(tmp_path), "--concept", "balloon", "--attack", "direct"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert "holds another run\nGot: concept sword there, balloon now\nTry: --concept sword, or another --out" in said


def test_a_run_of_ones_own_concept_file_is_told_by_that_file(tmp_path: Path) -> None:
    content = yaml.safe_load(concept_path("sword").read_text()) | {"name": "blade"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    run = duo.open_run(tmp_path / "run", concept=str(tmp_path / "mine.yaml"), quiet=True)
    run.finish("pairs", 1.0, "done")
    with pytest.raises(DuoError, match="Got: concept blade there, sword now") as caught:
        duo.open_run(tmp_path / "run", concept="sword", quiet=True).begin()
    assert caught.value.hint == f"--concept {tmp_path / 'mine.yaml'}, or another --output"
    duo.open_run(tmp_path / "run", concept=str(tmp_path / "mine.yaml"), quiet=True).begin()
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content | {"name": "dagger"}))
    with pytest.raises(DuoError, match=r"Try: the name blade in \S+mine.yaml again"):
        duo.open_run(tmp_path / "run", quiet=True).begin()


LONG = "a" * 300


@pytest.mark.parametrize(
    "words",
    [
        ["report", LONG],
        ["drop", LONG, "0001"],
        ["sweep", LONG],
        ["ledger", LONG],
        ["concepts", "new", "x", "-o", f"{LONG}.yaml"],
    ],
    ids=["report", "drop", "sweep", "ledger", "concepts"],
)
def test_a_name_that_no_file_can_have_is_told(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["duo", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["Error", "Got", "Try"]
    assert lines[0].startswith("Error: cannot use aaa")
    assert list(tmp_path.iterdir()) == []


def test_a_search_is_aware_of_a_guard_or_refused(tmp_path: Path) -> None:
    session = duo.open_run(tmp_path, quiet=True)
    plan = AttackPlan(["direct"], prompts=1, aware=True)
    with pytest.raises(DuoError, match="aware of guards alone\\nGot: --aware, and no guard in original"):
        check_attack(session, [System()], plan)
    check_attack(session, [session.system("negative-prompt")], plan)
