"""`duo verify` and what a sender chose: names that a statement gives, and what lies beside the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.arena.remeasure import remeasure
from duo_unlearn.arena.verify import verify
from duo_unlearn.export.statement import EVIDENCE

from .exported_run import mend, read, rewrite_alike


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "out"))


@pytest.fixture(scope="session")
def merged(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return duo.export(measured, tmp_path_factory.mktemp("merged") / "out", "merged").folder


def test_a_concept_file_that_a_statement_names_is_not_opened(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may name a Python function as its detector, which would be run."""
    ran = tmp_path / "ran"
    (tmp_path / "theirs.py").write_text(
        f"open({str(ran)!r}, 'w')\n\ndef judge(images):\n    return [0.0] * len(images)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    concept = folder / "c.yaml"
    concept.write_text("name: sword\ndetector: {name: 'theirs:judge'}\n")
    evidence = read(folder, EVIDENCE)
    evidence["concept"]["name"] = str(concept)
    rewrite_alike(folder, evidence)
    (check,) = remeasure(folder, 2, device="cpu")
    assert (check.outcome, "is not shipped" in check.words) == ("not checked", True)
    assert not ran.exists()


def test_a_base_that_a_statement_names_is_not_fetched(folder: Path) -> None:
    evidence = read(folder, EVIDENCE)
    evidence["base"]["name"] = "nobody/no-such-model"
    rewrite_alike(folder, evidence)
    weights = verify(folder, device="cpu").checks[3]
    assert (weights.name, weights.outcome) == ("weights", "not checked")
    assert "nothing that a statement names is fetched" in weights.words
    assert verify(folder, base="mini", device="cpu").checks[3].outcome == "agrees"


def _json(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _scheduler(folder: Path) -> None:
    _json(folder / "scheduler" / "scheduler_config.json", lambda c: c.update(beta_end=0.02))


def _encoder(folder: Path) -> None:
    _json(folder / "text_encoder" / "config.json", lambda c: c.update(hidden_act="gelu"))


def _tokenizer(folder: Path) -> None:
    """Two words change places, so one is read as the other."""
    path = folder / "tokenizer" / "tokenizer.json"

    def swap(content: dict[str, object]) -> None:
        model = content["model"]
        assert isinstance(model, dict)
        words = list(model["vocab"])[300:302]
        model["vocab"][words[0]], model["vocab"][words[1]] = model["vocab"][words[1]], model["vocab"][words[0]]

    _json(path, swap)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_scheduler, "scheduler: configuration"),
        pytest.param(_encoder, "text_encoder: configuration", marks=pytest.mark.slow),
        pytest.param(_tokenizer, "tokenizer: tokenizer", marks=pytest.mark.slow),
    ],
)
def test_a_merged_model_with_another_part_beside_its_weights_is_found(
    merged: Path, tmp_path: Path, change: Callable[[Path], None], told: str
) -> None:
    place = Path(shutil.copytree(merged, tmp_path / "out"))
    change(place)
    mend(place)
    weights = verify(place, device="cpu").checks[3]
    assert (weights.outcome, told in weights.words) == ("differs", True)
