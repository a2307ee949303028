"""`duo verify` of an export at another strength than what was measured."""

from __future__ import annotations

import shutil
from pathlib import Path

from duo_unlearn.arena.verify import verify
from duo_unlearn.export.card import metadata
from duo_unlearn.export.statement import EVIDENCE, read_statement

from .exported_run import mend, read, rewrite_alike


def test_a_card_without_an_index_agrees_and_so_does_one_of_a_version_before(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "out"))
    evidence = read(folder, EVIDENCE)
    evidence["export"]["strength"] = 0.5
    rewrite_alike(folder, evidence)
    card, predicate = folder / "README.md", read_statement(folder).predicate
    text = card.read_text()
    assert "model-index" not in text
    before = text.replace(metadata(predicate, "out"), metadata(predicate, "out", indexed=True))
    assert "model-index" in before
    for content, outcome in (
        (text, "agrees"),
        (before, "agrees"),
        (before.replace("value: 0.8", "value: 0.9", 1), "differs"),
    ):
        card.write_text(content)
        mend(folder)
        found = {check.name: check for check in verify(folder, base="nobody/no-such-model", device="cpu").checks}
        assert found["card"].outcome == outcome, found["card"].words
