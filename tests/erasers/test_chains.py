"""The ledger's chains: what an edit stands on beside its own pairs, and what a closed form saw."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import duo_unlearn as duo
from duo_unlearn.cli.main import app
from duo_unlearn.edits.provenance import edit_hash, read_provenance
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.ledger import holders, read_ledger, remaining
from duo_unlearn.pairs.manifest import read_entries, save_manifest, set_keep
from duo_unlearn.records import Pair
from duo_unlearn.session import Session

from .small import OPTIONS

MIXED = {"unsafe": 0.5, "own": 0.0, "empty": 0.0, "random": 0.0, "search": 0.0, "bank": 0.5}
SMALLER = {"unlearndiffatk": {"timesteps": 1, "steps": 1}}


def copied(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder, ignore=shutil.ignore_patterns("edits", "train")))


def trained(folder: Path, eraser: str, **options: Any) -> Session:
    """A run with an edit of an eraser."""
    given = {"eraser": eraser, "erasers": {eraser: {**OPTIONS.get(eraser, {}), **options}}}
    run = duo.open_run(folder, settings=given, quiet=True)
    duo.train(run)
    return run


def pairs_of(run: Path) -> list[Pair]:
    return [pair for pair in read_entries(run / "pairs").pairs if pair.keep]


@pytest.mark.parametrize("eraser", ["uce", "rece"])
def test_a_closed_form_forgets_a_pair_whose_prompts_another_one_has(
    eraser: str, run_folder: Path, tmp_path: Path
) -> None:
    folder = copied(run_folder, tmp_path / "run")
    found = read_entries(folder / "pairs")
    first, second, *others = found.pairs
    twin = dataclasses.replace(second, unsafe_prompt=first.unsafe_prompt, safe_prompt=first.safe_prompt)
    save_manifest(folder / "pairs", concept=found.concept, settings=found.settings, pairs=[first, twin, *others])
    edit = trained(folder, eraser).run.edit(eraser)
    before = (edit_hash(edit), read_provenance(edit))
    trained(folder, eraser)
    assert (edit_hash(edit), read_provenance(edit)) == before
    set_keep(folder / "pairs", [twin.name], keep=False)
    trained(folder, eraser)
    told = [[pair.unsafe_sha256, pair.safe_sha256] for pair in pairs_of(folder)]
    assert read_provenance(edit)["pairs"] == told
    # The file itself says the same, where provenance.json is not beside it.
    assert twin.unsafe_sha256.encode() not in next(edit.glob("*.safetensors")).read_bytes()
    with pytest.raises(DuoError, match="no edit of the ledger saw this pair"):
        holders(read_ledger([folder]), twin.name)


@pytest.mark.slow
def test_a_bank_from_attacks_on_another_runs_edit_makes_a_chain(run_folder: Path, tmp_path: Path) -> None:
    attacked, reader = (copied(run_folder, tmp_path / name) for name in ("attacked", "reader"))
    bank = duo.fill_bank(
        trained(attacked, "uce"), tmp_path / "bank.safetensors", ["unlearndiffatk"], prompts=1, budgets=SMALLER
    )
    only = pairs_of(reader)[0]
    set_keep(reader / "pairs", [only.name], keep=False)
    trained(reader, "robust-duo", bank=str(bank), captions=MIXED, max_train_steps=1)
    below, above = read_ledger([attacked, reader])
    assert (list(below.bank), list(above.bank), above.on) == ([], [below.sha256], [])
    # The reader never saw the pair, and stands on what did.
    assert only.name not in above.names
    assert duo.read_ledger([attacked, reader], only.name) == [below, above]
    assert remaining([below, above], [reader]) == [below]
    with pytest.raises(DuoError, match="nothing of the ledger is left"):
        remaining([below, above], [attacked])
    shown = CliRunner().invoke(app, ["ledger", str(attacked), str(reader), "--pair", only.name], catch_exceptions=False)
    assert shown.stdout.count(below.sha256[:16]) == 2
    assert "filled anew first" in shown.stderr + shown.stdout
    plain = CliRunner().invoke(app, ["ledger", str(attacked), "--json"], catch_exceptions=False)
    assert [entry["bank"] for entry in json.loads(plain.stdout)] == [[]]
