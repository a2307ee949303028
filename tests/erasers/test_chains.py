"""The ledger's chains: what an edit stands on beside its own pairs, and what a closed form saw."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

import duo_unlearn as duo
from duo_unlearn.edits.provenance import edit_hash, read_provenance
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.ledger import holders, read_ledger
from duo_unlearn.pairs.manifest import read_entries, save_manifest, set_keep
from duo_unlearn.records import Pair
from duo_unlearn.session import Session

from .small import OPTIONS


def copied(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder, ignore=shutil.ignore_patterns("edits", "train")))


def trained(folder: Path, eraser: str, **options: Any) -> Session:
    """A run with an edit of an eraser."""
    given = {"eraser": eraser, "erasers": {eraser: {**OPTIONS.get(eraser, {}), **options}}}
    run = duo.open_run(folder, settings=given, quiet=True)
    duo.train(run)
    return run


def kept(run: Path) -> list[Pair]:
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
    told = [[pair.unsafe_sha256, pair.safe_sha256] for pair in kept(folder)]
    assert read_provenance(edit)["pairs"] == told
    # The file itself says the same, where provenance.json is not beside it.
    assert twin.unsafe_sha256.encode() not in next(edit.glob("*.safetensors")).read_bytes()
    with pytest.raises(DuoError, match="no edit of the ledger saw this pair"):
        holders(read_ledger([folder]), twin.name)
