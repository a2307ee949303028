"""`duo verify`: tampered folders are found, honest ones are not, and bad input is told in three lines."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import pytest
import typer

import duo_unlearn as duo
from duo_unlearn.arena.verify import verify
from duo_unlearn.cli.adapter import verify as command
from duo_unlearn.errors import DuoError
from duo_unlearn.export.statement import EVIDENCE, STATEMENT
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.records import CORRECTED
from duo_unlearn.runs.labels import Label, append_label
from duo_unlearn.runs.results import read_results, write_results
from duo_unlearn.storage.files import read_tensors, sha256_of, write_tensors

from ..slow import slow_but
from .exported_run import TAMPERINGS, measured_run, mend, read, rewrite_alike, weights_of, write
from .small_run import make_run

FORMATS = ("diffusers", "kohya", "merged", "checkpoint")
QUICK = ("another_edit", "file_moved")
"""Tamperings of the fast tests: weights, and a file. Numbers and attacks have tests of their own."""


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "out"))


def base_that_changed(folder: Path) -> Path:
    base = Path(shutil.copytree(weights_folder(), folder / "base"))
    path = base / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = read_tensors(path)[0]
    write_tensors(path, {**tensors, "conv_in.bias": tensors["conv_in.bias"] + 0.01}, {"format": "pt"})
    return base


def outcomes(folder: Path, base: str | None = None) -> dict[str, str]:
    return {check.name: check.outcome for check in verify(folder, base=base, device="cpu").checks}


def without_weights(folder: Path) -> dict[str, str]:
    """The outcomes of the checks that need no base, which is not loaded."""
    return outcomes(folder, base="nobody/no-such-model")


def test_an_honest_folder_agrees_in_all(exported: Path) -> None:
    found = verify(exported, device="cpu")
    assert [(check.name, check.outcome) for check in found.checks] == [
        ("files", "agrees"), ("numbers", "agrees"), ("card", "agrees"), ("weights", "agrees"),
    ]  # fmt: skip


@pytest.mark.slow
def test_an_adapter_for_diffusers_is_the_very_file_that_was_measured(measured: Path, tmp_path: Path) -> None:
    folder = duo.export(measured, tmp_path / "out").folder
    assert sha256_of(weights_of(folder)) == sha256_of(weights_of(measured / "edits" / "duo"))
    assert "the very file that was measured" in verify(folder, device="cpu").checks[3].words


@pytest.mark.parametrize("kind", slow_but(TAMPERINGS, QUICK))
def test_each_kind_of_tampering_is_found(kind: str, folder: Path) -> None:
    TAMPERINGS[kind](folder, random.Random(1))
    assert verify(folder, device="cpu").has("differs")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_100_of_100_seeded_tamperings_are_found_over_every_format(measured: Path, tmp_path: Path) -> None:
    folders = {form: duo.export(measured, tmp_path / form, form).folder for form in FORMATS}
    rng, kinds, missed = random.Random(0), list(TAMPERINGS), []
    for i in range(100):
        kind, form = kinds[i % len(kinds)], FORMATS[i // len(kinds) % len(FORMATS)]  # each kind meets every format
        place = Path(shutil.copytree(folders[form], tmp_path / "tampered"))
        TAMPERINGS[kind](place, rng)
        if not verify(place, device="cpu").has("differs"):
            missed.append((i, kind, form))
        shutil.rmtree(place)
    assert missed == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_none_of_20_honest_folders_is_called_another(tmp_path: Path) -> None:
    suspected = []
    for i in range(5):
        run = measured_run(tmp_path / f"run-{i}", seed=i, size=0.02 * (1 + i), rank=1 + i)
        for form in FORMATS:
            place = duo.export(run, tmp_path / f"{form}-{i}", form, strength=(1.0, 0.5, 1.3)[i % 3]).folder
            checks = verify(place, device="cpu").checks
            suspected += [(form, i, check) for check in checks if check.outcome != "agrees"]
    assert suspected == []


@pytest.mark.slow
def test_what_is_rewritten_alike_everywhere_is_not_found_without_a_signature(folder: Path) -> None:
    """docs/statement.md says so: here an attack is left out of the evidence, the statement and the card."""
    evidence = read(folder, EVIDENCE)
    evidence["groups"] = [group for group in evidence["groups"] if group["asked"]["attack"] != "p4d"]
    rewrite_alike(folder, evidence)
    assert not verify(folder, device="cpu").has("differs")


def test_the_base_that_a_card_names_is_the_statements(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evidence = read(folder, EVIDENCE)
    evidence["base"]["name"] = "owner/model"
    rewrite_alike(folder, evidence)
    card = folder / "README.md"
    text = card.read_text()
    assert without_weights(folder)["card"] == "agrees"
    for changed, outcome in (
        (text.replace("base_model: owner/model", "base_model: owner/other"), "differs"),
        (text.replace("base_model_relation: adapter", "base_model_relation: finetune"), "differs"),
        (text.replace("base_model_relation: adapter\n", ""), "differs"),
        (text.replace("base_model: owner/model\n", "").replace("base_model_relation: adapter\n", ""), "agrees"),
    ):
        assert changed != text
        card.write_text(changed)
        mend(folder)
        assert without_weights(folder)["card"] == outcome
    card.write_text(text)
    mend(folder)
    (tmp_path / "owner" / "model").mkdir(parents=True)  # the same words are a folder's name here
    assert without_weights(folder)["card"] == "agrees"


def test_an_export_that_was_not_measured_has_no_table_and_says_so(folder: Path) -> None:
    evidence = read(folder, EVIDENCE)
    evidence.update(systems=[], groups=[], judges=[], labels=[], pool=[], kept=[], absent=[])
    rewrite_alike(folder, evidence)
    assert without_weights(folder)["card"] == "agrees"
    card = folder / "README.md"
    text = card.read_text()
    row = "| dsr | direct | – | – | duo | 1.000 [0.963, 1.000] | 100 | `mini-judge` |\n"
    for changed in (
        text.replace("## Loading", f"## Our numbers\n\n{row}\n## Loading"),
        re.sub("## Not measured.*?\n\n## ", "## ", text, flags=re.DOTALL),
        re.sub("## Not measured\n\n.*?\n\n", "## Not measured\n\n", text, flags=re.DOTALL),
        re.sub("## Results\n\n.*?\n\n", "## Results\n\nIt is safe.\n\n", text, flags=re.DOTALL),
    ):
        assert changed != text
        card.write_text(changed)
        mend(folder)
        assert without_weights(folder)["card"] == "differs"


def test_a_signature_may_join_the_folder_under_its_own_name_alone(folder: Path) -> None:
    (folder / "model.sig").write_text("{}")
    assert without_weights(folder)["files"] == "agrees"
    (folder / "model.sig").rename(folder / "other.sig")
    assert without_weights(folder)["files"] == "differs"


def test_each_difference_is_three_lines_and_exit_1(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = base_that_changed(tmp_path)
    with pytest.raises(typer.Exit) as stopped:
        command(folder, base=str(base), device="cpu")
    assert stopped.value.exit_code == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["files", "numbers", "card"]
    assert len(lines[3:]) == 3
    assert lines[3].startswith("Error: weights: ")
    assert "is another base" in lines[4]
    weights_of(folder).rename(folder / "renamed.safetensors")
    with pytest.raises(typer.Exit) as stopped:
        command(folder, device="cpu")
    assert stopped.value.exit_code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Error: files: ")
    assert "duo-sword.safetensors is missing; renamed.safetensors is not in the statement" in lines[1]
    assert [line.split(":")[0] for line in lines[3:]] == ["numbers", "card", "weights"]
    assert "weights: not checked" in lines[5]


def test_a_base_that_is_not_here_is_no_pass(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (EVIDENCE, STATEMENT):
        content = read(folder, name)
        (content if name == EVIDENCE else content["predicate"])["base"]["name"] = "nobody/no-such-model"
        write(folder, content, name)
    mend(folder)
    assert outcomes(folder)["weights"] == "not checked"
    command(folder, device="cpu")
    assert "weights: not checked" in capsys.readouterr().err
    with pytest.raises(typer.Exit) as stopped:
        command(folder, device="cpu", strict=True, as_json=True)
    assert stopped.value.exit_code == 1
    assert json.loads(capsys.readouterr().out)["agrees"] is False


def test_the_words_for_machines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = read(folder)
    content["predicate"]["measured"][0]["value"] += 0.25
    write(folder, content)
    with pytest.raises(typer.Exit) as stopped:
        command(folder, device="cpu", as_json=True)
    assert stopped.value.exit_code == 1
    told = json.loads(capsys.readouterr().out)
    assert told["agrees"] is False
    assert [check["outcome"] for check in told["checks"]] == ["agrees", "differs", "differs", "agrees"]
    assert "by the evidence" in told["checks"][1]["words"]


def test_bad_input_is_told_in_three_lines(folder: Path, tmp_path: Path) -> None:
    statement = read(folder)
    for change, words in (
        ({"predicateType": "https://duo_unlearn/erasure/v2"}, "is of another form"),
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "is of another form"),
        ({"predicate": {}}, "has faults"),
        ({"subject": []}, "has faults"),
    ):
        write(folder, {**statement, **change})
        with pytest.raises(DuoError, match=words) as caught:
            verify(folder)
        assert len(str(caught.value).split("\n")) == 3
    for content in ("", "[]", "{"):
        (folder / STATEMENT).write_text(content)
        with pytest.raises(DuoError):
            verify(folder)
    (folder / STATEMENT).unlink()
    with pytest.raises(DuoError, match="holds no statement"):
        verify(folder)
    with pytest.raises(DuoError, match="there is no folder"):
        verify(tmp_path / "nowhere")


@pytest.mark.slow
def test_results_that_are_not_of_the_attempts_are_not_exported(measured: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(measured, tmp_path / "run"))
    session = duo.open_run(place, quiet=True)
    known = read_results(session.run)
    better = [e.__class__(**{**e.as_json(), "seeds": e.seeds, "value": 1.0}) for e in known.estimates]
    write_results(session.run, **{**known._asdict(), "estimates": better})
    with pytest.raises(DuoError, match="not what its attempts give") as caught:
        duo.export(place, tmp_path / "out")
    assert "duo judge" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_corrected_rates_follow_from_the_labels_that_travel_along(measured: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(measured, tmp_path / "run"))
    session = duo.open_run(place, quiet=True)
    pictures = {path.name: path for path in sorted(place.glob("attempts/duo/direct/direct/*.png"))}
    for i, path in enumerate(pictures.values()):
        append_label(session.run, Label(sha256_of(path), "yes" if i < 3 else "no", "Ann Example"))
    duo.judge(session)
    out = duo.export(place, tmp_path / "out").folder
    numbers = read(out)["predicate"]["measured"]
    assert any(one["metric"] == CORRECTED for one in numbers)
    assert not verify(out, device="cpu").has("differs")
    assert "Ann" not in (out / EVIDENCE).read_text() + (out / STATEMENT).read_text()
    evidence = read(out, EVIDENCE)
    evidence["labels"][3]["label"] = "yes"
    write(out, evidence, EVIDENCE)
    mend(out)
    assert outcomes(out)["numbers"] == "differs"


@pytest.mark.slow
def test_what_is_measured_again_agrees_and_verdicts_that_were_made_up_do_not(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"evaluate.inversion_prompts": 0})
    duo.evaluate(run)
    duo.judge(run, threshold=0.9)
    folder = duo.export(run.run.folder, tmp_path / "out").folder
    concept = str(tmp_path / "sword.yaml")
    checks = duo.verify(folder, remeasure=3, concept=concept, device="cpu").checks[4:]
    # Two judges and a threshold, each on sets that ask for the concept and on those that do not.
    assert len(checks) == 6
    assert sum(">=0.9]" in check.words for check in checks) == 2
    assert {check.outcome for check in checks} == {"agrees"}
    # They lay in other batches before, so the last bit of a pixel may differ.
    assert re.search(r"9 pictures again, \d of them the same to the bit", checks[0].words)
    assert "0 verdicts changed" in checks[0].words
    other = duo.verify(folder, remeasure=3, device="cpu").checks[4:]
    assert [check.outcome for check in other] == ["not checked"]  # the shipped concept is not the file of the run
    evidence = read(folder, EVIDENCE)
    for judge in evidence["judges"]:
        for reading in judge["readings"].values():
            reading["detected"] = not reading["detected"]
    rewrite_alike(folder, evidence)
    found = duo.verify(folder, remeasure=3, concept=concept, device="cpu").checks
    assert {check.outcome for check in found[:4]} == {"agrees"}  # it is rewritten alike everywhere
    assert [check.outcome for check in found[4:]][:1] == ["differs"]
    assert weights_of(folder).is_file()
