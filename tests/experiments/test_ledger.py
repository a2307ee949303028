"""The ledger: which edit saw which pairs, what is left without one, and slices that are trained apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import duo_unlearn as duo
from duo_unlearn.cli.main import app
from duo_unlearn.edits.files import read_edit
from duo_unlearn.edits.provenance import PROVENANCE, edit_file
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.ledger import Entry, holders, namesakes, read_ledger, remaining, with_dependents
from duo_unlearn.pairs.manifest import read_manifest
from duo_unlearn.storage.files import read_json, read_tensors, write_json

from .small_run import new_run


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three slices of a run of three pairs, one step each."""
    few: dict[str, Any] = {"max_train_steps": 1, "train_batch_size": 1, "rank": 2, "preview_steps": 0}
    run = new_run(tmp_path_factory.mktemp("ledger"), **{f"train__{name}": value for name, value in few.items()})
    return duo.slice_run(run.run.folder, 3)


def test_every_pair_is_in_one_slice_and_names_its_edit(slices: list[Path]) -> None:
    entries = read_ledger(slices)
    seen = [pair for entry in entries for pair in entry.pairs]
    assert len(seen) == len(set(seen)) == 3
    for entry in entries:
        (name,) = entry.names
        assert [one.source for one in holders(entries, name)] == [entry.source]
        assert [one.source for one in holders(entries, entry.pairs[0][1][:12])] == [entry.source]


@pytest.mark.slow
def test_slices_that_are_there_are_not_trained_again(slices: list[Path]) -> None:
    before = [(slice_ / "edits" / "duo" / PROVENANCE).stat().st_mtime_ns for slice_ in slices]
    said: list[str] = []
    assert duo.slice_run(slices[0].parents[1], 3, said.append) == slices
    assert all("already done" in line for line in said)
    assert [(slice_ / "edits" / "duo" / PROVENANCE).stat().st_mtime_ns for slice_ in slices] == before
    with pytest.raises(DuoError, match="another slice"):
        duo.slice_run(slices[0].parents[1], 2)


def test_leaving_one_out_is_bit_equal_to_never_having_had_it(slices: list[Path], tmp_path: Path) -> None:
    left = duo.sum_of_rest(slices, [slices[1]], tmp_path / "rest")
    assert [entry.source for entry in left] == [slices[0], slices[2]]
    duo.compose([slices[0], slices[2]], tmp_path / "never", prompts=None)
    rest, never = (read_edit(tmp_path / name / "edits" / "composed", "composed") for name in ("rest", "never"))
    tensors, expected = read_tensors(rest.path)[0], read_tensors(never.path)[0]  # type: ignore[attr-defined]
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)
    # The slice that was trained alone knows nothing of the others: training it anew gives the same edit.
    one = duo.sum_of_rest(slices, slices[1:], tmp_path / "one", weights=[1.0, 1.0, 1.0])
    assert [entry.source for entry in one] == [slices[0]]


@pytest.mark.slow
def test_what_is_left_is_bit_equal_to_a_ledger_that_never_had_the_other(tmp_path: Path) -> None:
    steps: dict[str, Any] = {"train__max_train_steps": 3, "train__rank": 2}
    whole = new_run(tmp_path / "whole", **steps)
    first, gone, last = duo.slice_run(whole.run.folder, 3)
    # The same ledger in another place, to which the images of the second slice never came.
    mine = Path(shutil.copytree(tmp_path / "whole" / "mine", tmp_path / "bare" / "mine"))
    for name in [pair.name for pair in read_manifest(gone / "pairs").pairs if pair.keep]:
        (mine / "unsafe" / f"{name}.png").unlink()
        (mine / "safe" / f"{name}.png").unlink()
    given = {**steps, "concept": whole.settings.concept, "pairs.folder": str(mine), "pairs.trust": True}
    bare = {key.replace("__", "."): value for key, value in given.items()}
    never = duo.open_run(tmp_path / "bare" / "run", settings=bare, quiet=True)
    duo.make_pairs(never)
    there = duo.slice_run(never.run.folder, 2)
    one, other, lost = (
        [edit_file(run / "edits" / "duo").read_bytes() for run in runs] for runs in ((first, last), there, (gone,))
    )
    assert one == other
    assert lost[0] not in one
    duo.sum_of_rest([first, gone, last], [gone], tmp_path / "rest")
    duo.compose(there, tmp_path / "sum", prompts=None)
    rest, alone = (edit_file(tmp_path / name / "edits" / "composed") for name in ("rest", "sum"))
    tensors, expected = ({k: t.numpy().tobytes() for k, t in read_tensors(file)[0].items()} for file in (rest, alone))
    assert tensors == expected


def test_what_stands_on_an_edit_goes_with_it() -> None:
    def entry(name: str, on: list[str]) -> Entry:
        return Entry(
            Path(name), "duo", name * 8, "sword", [(f"{name}1", f"{name}2")], {name: (f"{name}1", f"{name}2")}, on
        )

    first, second, third, other = entry("a", []), entry("b", ["a" * 8]), entry("c", ["b" * 8]), entry("d", [])
    ledger = [first, second, third, other]
    assert with_dependents(ledger, [first]) == [first, second, third]
    assert holders(ledger, "b") == [second, third]
    assert remaining(ledger, [Path("b")]) == [first, other]
    with pytest.raises(DuoError, match="nothing of the ledger is left"):
        remaining([first, second], [Path("a")])


def test_a_name_that_several_runs_have_is_told_with_what_tells_them_apart() -> None:
    def entry(run: str, image: str) -> Entry:
        return Entry(Path(run), "duo", run * 8, "sword", [(image, "0" * 64)], {"0003": (image, "0" * 64)}, [])

    one, same, other = entry("a", "1" * 64), entry("b", "1" * 64), entry("c", "2" * 64)
    assert holders([one, same, other], "0003") == [one, same, other]
    assert namesakes([one, same], "0003") == []
    assert namesakes([one, same, other], "0003") == ["1" * 8, "2" * 8]
    assert holders([one, same, other], "2" * 8) == [other]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--slices", "2", "--pair", "0001"], "--slices and --pair mean nothing together"),
        (["--slices", "2", "--json"], "--slices and --json mean nothing together"),
        (["--slices", "2", "-o", "there"], "--slices and --output mean nothing together"),
        (["--slices", "2", "--without", "a"], "--slices and --without mean nothing together"),
        (["--without", "a", "-o", "there", "--pair", "0001"], "--without and --pair mean nothing together"),
        (["--without", "a", "-o", "there", "--json"], "--without and --json mean nothing together"),
        (["--without", "a"], "needs a folder"),
        (["--pair", "0001", "--weight", "1"], "--pair and --weight mean nothing together"),
        (["-o", "there"], "--output is of the sum of what is left"),
        (["--weight", "1", "--json"], "--weight is of the sum of what is left"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["ledger", "a", *options])
    assert isinstance(done.exception, DuoError)
    assert said in str(done.exception)
    assert done.exception.hint
    assert not list(tmp_path.iterdir())


def test_options_that_belong_together_are_taken(slices: list[Path], tmp_path: Path) -> None:
    sources = [str(path) for path in slices]
    (name,) = read_ledger(slices)[0].names
    found = CliRunner().invoke(app, ["ledger", *sources, "--pair", name, "--json"], catch_exceptions=False)
    assert [entry["source"] for entry in json.loads(found.stdout)] == sources[:1]
    rest = ["--without", sources[0], "-o", str(tmp_path / "rest"), *(["--weight", "1"] * 3)]
    done = CliRunner().invoke(app, ["ledger", *sources, *rest], catch_exceptions=False)
    assert done.exit_code == 0
    assert (tmp_path / "rest" / "edits" / "composed").is_dir()


def test_bad_input_is_told(slices: list[Path], tmp_path: Path) -> None:
    entries = read_ledger(slices)
    with pytest.raises(DuoError, match="no edit of the ledger saw"):
        holders(entries, "no such pair")
    with pytest.raises(DuoError, match="not in the ledger"):
        remaining(entries, [tmp_path])
    with pytest.raises(DuoError, match="one weight an edit"):
        duo.sum_of_rest(slices, [slices[0]], tmp_path / "x", weights=[1.0])
    with pytest.raises(DuoError, match="a pair each"):
        duo.slice_run(slices[0].parents[1], 4)
    path = slices[0] / "edits" / "duo" / PROVENANCE
    kept = read_json(path)
    write_json(path, {key: value for key, value in kept.items() if key != "pairs"})
    with pytest.raises(DuoError, match="does not say which pairs"):
        read_ledger(slices)
    write_json(path, kept)
