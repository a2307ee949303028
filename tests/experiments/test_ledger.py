"""The ledger: which edit saw which pairs, and what is left without one."""

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
from duo_unlearn.edits.provenance import PROVENANCE, edit_file
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.ledger import (
    Entry,
    holders,
    namesakes,
    read_ledger,
    remaining,
    with_below,
    with_dependents,
)
from duo_unlearn.storage.files import read_json, read_tensors, write_json

from .small_run import PAIRS, slices_of


@pytest.fixture(scope="session")
def slices(sliced: Path) -> list[Path]:
    """The slices of a run, one step each."""
    return slices_of(sliced)


def test_every_pair_is_in_one_slice_and_names_its_edit(slices: list[Path]) -> None:
    entries = read_ledger(slices)
    assert sum(len(entry.pairs) for entry in entries) == PAIRS
    for entry in entries:
        assert len(entry.names) == len(entry.pairs)
        for name, (unsafe, _) in entry.names.items():
            assert [one.source for one in holders(entries, name)] == [entry.source]
            assert [one.source for one in holders(entries, unsafe[:16])] == [entry.source]


def test_leaving_one_out_is_bit_equal_to_the_sum_of_the_others(slices: list[Path], tmp_path: Path) -> None:
    left = duo.sum_of_rest(slices, [slices[1]], tmp_path / "rest")
    assert [entry.source for entry in left] == [slices[0], slices[2]]
    duo.compose([slices[0], slices[2]], tmp_path / "others", prompts=None)
    files = [edit_file(tmp_path / name / "edits" / "composed") for name in ("rest", "others")]
    tensors, expected = (read_tensors(file)[0] for file in files)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)
    one = duo.sum_of_rest(slices, slices[1:], tmp_path / "one", weights=[1.0, 1.0, 1.0])
    assert [entry.source for entry in one] == [slices[0]]


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


def test_what_read_the_finds_of_attacks_on_an_edit_goes_with_it() -> None:
    first = Entry(Path("a"), "duo", "a" * 8, "sword", [("a1", "a2")], {"a": ("a1", "a2")}, [])
    reader = Entry(Path("b"), "robust-duo", "b" * 8, "sword", [("b1", "b2")], {"b": ("b1", "b2")}, [], ["a" * 8])
    assert holders([first, reader], "a") == [first, reader]
    assert holders([first, reader], "b") == [reader]


def test_a_name_that_several_runs_have_is_told_with_what_tells_them_apart() -> None:
    def entry(run: str, image: str) -> Entry:
        return Entry(Path(run), "duo", run * 8, "sword", [(image, "0" * 64)], {"0003": (image, "0" * 64)}, [])

    one, same, other = entry("a", "1" * 64), entry("b", "1" * 64), entry("c", "2" * 64)
    assert holders([one, same, other], "0003") == [one, same, other]
    assert namesakes([one, same], "0003") == []
    assert namesakes([one, same, other], "0003") == ["1" * 8, "2" * 8]
    assert holders([one, same, other], "2" * 8) == [other]


def test_a_bank_names_the_edits_that_attacks_asked(slices: list[Path], tmp_path: Path) -> None:
    attacked, reader = slices[0], Path(shutil.copytree(slices[1], tmp_path / "reader"))
    # An earlier round read a bank that was filled on another run; the last one a bank of that round.
    shutil.copytree(slices[2] / "edits" / "duo", reader / "edits" / "duo-round-1")
    for name, system in (("duo-round-1", system_of("duo", attacked)), ("duo", system_of("duo-round-1", reader))):
        path = reader / "edits" / name / PROVENANCE
        write_json(path, {**read_json(path), "bank": {"system": system, "sha256": "0" * 64}})
    below, above = read_ledger([attacked, reader])
    first = read_ledger([reader / "edits" / "duo-round-1"])[0]
    assert (below.bank, first.bank, above.bank) == ([], [below.sha256], [first.sha256, below.sha256])
    assert with_dependents([below, above], [below]) == [below, above]
    assert with_below([below, above]) == [below, first, above]
    # What is named is not told twice, and a sum is of what is named.
    assert with_below([first, above]) == [first, above]
    assert duo.sum_of_rest([attacked, reader], [reader], tmp_path / "rest") == [below]


def system_of(name: str, run: Path) -> dict[str, Any]:
    return duo.open_run(run, quiet=True).system(name).as_json()


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
    name = next(iter(read_ledger(slices)[0].names))
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
    changed = Path(shutil.copytree(slices[0], tmp_path / "changed"))
    path = changed / "edits" / "duo" / PROVENANCE
    write_json(path, {key: value for key, value in read_json(path).items() if key != "pairs"})
    with pytest.raises(DuoError, match="does not say which pairs"):
        read_ledger([changed, *slices[1:]])
