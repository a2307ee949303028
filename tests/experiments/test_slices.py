"""Slices of a run: a pair that is deleted costs its own slice alone, and what is left never knew it."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import duo_unlearn as duo
from duo_unlearn.cli.main import app
from duo_unlearn.edits.provenance import edit_file
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments import slices as slices_
from duo_unlearn.experiments.ledger import holders, read_ledger
from duo_unlearn.experiments.slices import deal
from duo_unlearn.pairs.manifest import read_entries, save_manifest, set_keep
from duo_unlearn.records import Pair
from duo_unlearn.runs.folder import Run
from duo_unlearn.session import Session
from duo_unlearn.settings.tree import Settings, write_settings
from duo_unlearn.storage.files import read_json, read_tensors, write_json

from .small_run import FEW, PAIRS, SLICES, new_run, slices_of


@pytest.fixture
def run(sliced: Path, tmp_path: Path) -> Run:
    """A copy of it."""
    return Run(Path(shutil.copytree(sliced, tmp_path / "run")))


def pairs_of(folder: Path) -> list[Pair]:
    return read_entries(folder / "pairs").pairs


def with_one_to_lose(run: Run) -> tuple[Path, Pair]:
    """A slice of several pairs, and one of them."""
    folder = next(folder for folder in sorted(run.slices.iterdir()) if len(pairs_of(folder)) > 1)
    return folder, pairs_of(folder)[0]


def files_of(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder, but for locks, and for settings: they have the run's own place, and it was copied."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "settings.yaml"]
    return {path: path.read_bytes() for path in paths if not any(part.startswith(".") for part in path.parts)}


def edit_of(folder: Path, name: str = "duo") -> bytes:
    return edit_file(folder / "edits" / name).read_bytes()


def tensors_of(folder: Path, name: str = "composed") -> dict[str, torch.Tensor]:
    return read_tensors(edit_file(folder / "edits" / name))[0]


def duo_command(*words: object) -> None:
    CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_a_pairs_slice_is_its_own_and_slices_are_of_about_one_size() -> None:
    hashes = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(400)]
    pairs = [Pair(str(i), "", "", unsafe, unsafe[::-1]) for i, unsafe in enumerate(hashes)]
    slices = deal(pairs, 4)
    assert all(70 < len(mine) < 130 for mine in slices)
    assert sorted(pair.name for mine in slices for pair in mine) == sorted(pair.name for pair in pairs)
    assert deal(pairs[1:], 4) == [[pair for pair in mine if pair is not pairs[0]] for mine in slices]
    renamed = [dataclasses.replace(pair, name=f"other {pair.name}") for pair in pairs]
    assert [[pair.unsafe_sha256 for pair in mine] for mine in deal(renamed, 4)] == [
        [pair.unsafe_sha256 for pair in mine] for mine in slices
    ]


def test_what_is_done_is_not_trained_again(run: Run) -> None:
    before, said = files_of(run.slices), list[str]()
    assert duo.slice_run(run.folder, SLICES, said.append) == slices_of(run.folder)
    assert all("already done" in line for line in said)
    assert files_of(run.slices) == before


def test_a_pair_that_is_deleted_costs_its_own_slice_alone(run: Run, tmp_path: Path) -> None:
    slices = slices_of(run.folder)
    mine, gone = with_one_to_lose(run)
    others = [folder for folder in slices if folder != mine]
    before, untouched = edit_of(mine), [files_of(folder) for folder in others]
    duo.sum_of_rest(slices, [mine], tmp_path / "rest")
    # Rounds and caches leave copies in a slice.
    for name in ("bank", "cache"):
        shutil.copytree(mine / "pairs", mine / name / "pairs", dirs_exist_ok=True)
    # As docs/ledger.md says it.
    duo_command("drop", run.folder, gone.name)
    duo_command("ledger", run.folder, "--slices", SLICES)
    duo_command("compose", *slices, "-o", tmp_path / "sum", "--no-measure")
    assert [files_of(folder) for folder in others] == untouched
    assert edit_of(mine) != before
    assert gone.name not in [pair.name for pair in pairs_of(mine)]
    for name in (gone.name, gone.unsafe_sha256, gone.safe_sha256):
        with pytest.raises(DuoError, match="no edit of the ledger saw this pair"):
            holders(read_ledger(slices), name)
    copies = [hashlib.sha256(content).hexdigest() for content in files_of(run.slices).values()]
    assert not {gone.unsafe_sha256, gone.safe_sha256} & set(copies)
    # The new sum is the old one of the others, and beside it what the slice is now: adapters are added by stacking.
    new, rest = tensors_of(tmp_path / "sum"), tensors_of(tmp_path / "rest")
    alone = tensors_of(mine, "duo")
    assert new.keys() == rest.keys() == alone.keys()
    for name, tensor in new.items():
        parts = list(tensor.chunk(SLICES, dim=0 if "lora_A" in name else 1))
        assert torch.equal(parts.pop(slices.index(mine)), alone[name])
        assert torch.equal(torch.cat(parts, dim=0 if "lora_A" in name else 1), rest[name])


@pytest.mark.slow
def test_the_pictures_of_a_pair_can_go_once_the_slices_are_trained(run: Run) -> None:
    _, gone = with_one_to_lose(run)
    set_keep(run.pairs, [gone.name], keep=False)
    duo.slice_run(run.folder, SLICES)
    # As docs/ledger.md says it: both files, and the entry.
    for file in (gone.unsafe, gone.safe):
        (run.pairs / file).unlink()
    listed = read_json(run.pairs / "manifest.json")
    write_json(run.pairs / "manifest.json", {**listed, "pairs": [p for p in listed["pairs"] if p["name"] != gone.name]})
    now, said = files_of(run.slices), list[str]()
    duo.slice_run(run.folder, SLICES, said.append)
    assert all("already done" in line for line in said)
    assert files_of(run.slices) == now


def test_a_slice_without_a_pair_is_bit_equal_to_a_run_that_never_had_it(run: Run, tmp_path: Path) -> None:
    mine, gone = with_one_to_lose(run)
    kept = [pair for pair in pairs_of(mine) if pair != gone]
    set_keep(mine / "pairs", [gone.name], keep=False)
    shutil.rmtree(mine / "train")
    duo.train(duo.open_run(mine, quiet=True))
    # A run to which neither that pair ever came, nor those of the other slices.
    never = new_run(tmp_path / "never", 0, **FEW, pairs__folder=str(images(tmp_path / "few", run.pairs, kept)))
    duo.train(never)
    assert [pair.name for pair in never.pairs] == [pair.name for pair in kept]
    assert edit_of(never.run.folder) == edit_of(mine)


def images(folder: Path, source: Path, pairs: list[Pair]) -> Path:
    """The images of some pairs in a folder, as a user brings them."""
    for file in [file for pair in pairs for file in (pair.unsafe, pair.safe)]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / file, folder / file)
    return folder


@pytest.mark.slow
def test_what_is_left_is_bit_equal_to_a_ledger_that_never_had_the_pair(run: Run, tmp_path: Path) -> None:
    slices = slices_of(run.folder)
    _, gone = with_one_to_lose(run)
    set_keep(run.pairs, [gone.name], keep=False)
    duo.slice_run(run.folder, SLICES)
    kept = [pair for pair in pairs_of(run.folder) if pair.keep]
    never = new_run(tmp_path / "never", 0, **FEW, pairs__folder=str(images(tmp_path / "few", run.pairs, kept)))
    there = duo.slice_run(never.run.folder, SLICES)
    assert [edit_of(folder) for folder in there] == [edit_of(folder) for folder in slices]
    duo.compose(slices, tmp_path / "sum", prompts=None)
    duo.compose(there, tmp_path / "sum never", prompts=None)
    assert edit_of(tmp_path / "sum", "composed") == edit_of(tmp_path / "sum never", "composed")


def test_a_pair_that_was_dropped_in_its_slice_stays_dropped(run: Run) -> None:
    mine, gone = with_one_to_lose(run)
    set_keep(mine / "pairs", [gone.name], keep=False, reason="must go")
    # Another pair of the slice is dropped in the run, so that the slice is dealt anew.
    set_keep(run.pairs, [next(pair.name for pair in pairs_of(mine) if pair.keep)], keep=False)
    duo.slice_run(run.folder, SLICES)
    assert [(pair.name, pair.reason) for pair in pairs_of(mine) if not pair.keep] == [(gone.name, "must go")]
    with pytest.raises(DuoError, match="no edit of the ledger saw this pair"):
        holders(read_ledger([mine]), gone.name)


def test_until_its_slice_is_trained_again_the_ledger_names_a_pair(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, gone = with_one_to_lose(run)
    set_keep(run.pairs, [gone.name], keep=False)

    def dying(session: Session) -> None:
        if session.run.folder == mine:
            raise KeyboardInterrupt

    monkeypatch.setattr(slices_, "make_edit", dying)
    with pytest.raises(KeyboardInterrupt):
        duo.slice_run(run.folder, SLICES)
    assert gone.name not in [pair.name for pair in pairs_of(mine)]
    assert [entry.source for entry in holders(read_ledger([mine]), gone.name)] == [mine]
    monkeypatch.chdir(mine.parent)  # the folder of slices: a relative name does not say that it is one
    here = Path(mine.name)
    assert [entry.source for entry in holders(read_ledger([here]), gone.name)] == [here]


def test_a_slice_that_lost_all_its_pairs_is_told_and_then_left_out(run: Run) -> None:
    mine = run.slices / "2"
    set_keep(run.pairs, [pair.name for pair in pairs_of(mine)], keep=False)
    before = files_of(run.slices)
    with pytest.raises(DuoError, match="slice 2 of 3 has no pair left") as raised:
        duo.slice_run(run.folder, SLICES)
    assert str(mine) in str(raised.value.hint)
    assert files_of(run.slices) == before
    shutil.rmtree(mine)
    said: list[str] = []
    assert duo.slice_run(run.folder, SLICES, said.append) == [run.slices / "1", run.slices / "3"]
    assert all("already done" in line for line in said)


def test_more_slices_than_pairs_are_refused_at_once(tmp_path: Path) -> None:
    folder = new_run(tmp_path, 3).run.folder
    with pytest.raises(DuoError, match="a pair each") as raised:
        duo.slice_run(folder, 10**12)
    assert raised.value.got == "1000000000000 slices of 3 pairs"
    assert not (folder / "slices").exists()


def test_another_number_and_another_versions_slices_are_told(run: Run) -> None:
    before = files_of(run.folder)
    with pytest.raises(DuoError, match="another number of slices") as raised:
        duo.slice_run(run.folder, 2)
    assert f"duo ledger {run.folder} --slices 3" in str(raised.value.hint)
    assert files_of(run.folder) == before
    run.slice_count.unlink()
    with pytest.raises(DuoError, match="older version"):
        duo.slice_run(run.folder, SLICES)


def test_an_empty_slice_is_told_before_anything_is_written(run: Run) -> None:
    shutil.rmtree(run.slices)
    run.slice_count.unlink()
    for count in (1, PAIRS + 1):
        with pytest.raises(DuoError, match="a pair each"):
            duo.slice_run(run.folder, count)
    assert not run.slices.exists()
    assert not run.slice_count.exists()
    # The number that is named has no empty slice.
    with pytest.raises(DuoError) as raised:
        duo.slice_run(run.folder, 1000)
    named = int(str(raised.value.hint).removeprefix("--slices "))
    assert all(deal(pairs_of(run.folder), named))


@pytest.mark.parametrize("eraser", ["esd-x", "esd-u", "salun", "stereo", "hirm", "advunlearn"])
def test_slices_that_could_not_be_added_up_are_refused(eraser: str, tmp_path: Path) -> None:
    settings = Settings(output=tmp_path, model="mini", eraser=eraser)
    write_settings(Run(tmp_path).settings, settings)
    with pytest.raises(DuoError, match="cannot be added up exactly") as raised:
        duo.slice_run(tmp_path, 2)
    assert "duo, " in str(raised.value.hint)
    assert eraser not in str(raised.value.hint)
    assert not Run(tmp_path).slices.exists()


def test_slices_on_a_floor_are_refused_and_without_it_they_are_not(tmp_path: Path) -> None:
    run = Run(tmp_path)
    given = {"model": "mini", "recipe": "robust"}
    write_settings(run.settings, duo.open_run(tmp_path, settings=given, quiet=True).settings)
    with pytest.raises(DuoError, match="lie on another edit") as raised:
        duo.slice_run(tmp_path, 2)
    assert "floor=null" in str(raised.value.hint)
    write_settings(run.settings, duo.open_run(tmp_path, settings={"floor": None}, quiet=True).settings)
    save_manifest(run.pairs, concept="sword", settings={}, pairs=[])
    with pytest.raises(DuoError, match="a pair each"):
        duo.slice_run(tmp_path, 2)
