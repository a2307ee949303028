"""The card says what was measured, of which files, and which bars are missed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from duo_unlearn.errors import DuoError
from duo_unlearn.mini.fit import card
from duo_unlearn.mini.fit.bars import THRESHOLDS, failed_bars, shown
from duo_unlearn.mini.fit.fit import TOKENIZER, Recipe
from duo_unlearn.mini.fit.quality import Figure, Figures
from duo_unlearn.mini.fit.sheet import sample_sheet
from duo_unlearn.mini.model.judge_net import JUDGES
from duo_unlearn.mini.world.captions import WORDINGS
from duo_unlearn.storage.files import read_json, sha256_of, write_json, write_tensors

CPU = torch.device("cpu")
RECIPE: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(Recipe()))) | {"tokenizer": TOKENIZER}
STAGES = {"clip": {"seconds": 472, "machine": "2 CPU cores"}, "unet": {"seconds": 3725, "machine": "NVIDIA H100"}}


@pytest.fixture(scope="module")
def figures(untrained: Path) -> Figures:
    return card.measure(untrained, count=2, batch=16, device=CPU, quiet=True)


@pytest.fixture
def model(tmp_path: Path, untrained: Path) -> Path:
    """A copy of the untrained model that a test may write to."""
    return Path(shutil.copytree(untrained, tmp_path / "work" / "model"))


def perfect() -> Figures:
    return {name: Figure(least, least, least, 600) for name, least in THRESHOLDS.items()}


@pytest.mark.slow
def test_every_bar_is_measured(figures: Figures) -> None:
    assert set(THRESHOLDS) <= set(figures)
    for name, figure in figures.items():
        assert figure.low <= figure.value <= figure.high, name
        assert figure.n >= 1
        if "psnr" not in name:
            assert 0 <= figure.low <= figure.high <= 1, name


@pytest.mark.slow
def test_the_number_of_items_is_what_was_asked_for(figures: Figures) -> None:
    for judge in JUDGES:
        assert figures[f"{judge}/drawn item"].n == 6  # figures, objects and pairs
        assert figures[f"{judge}/damaged place"].n == 6
        assert figures[f"{judge}/drawn colour"].n == 4  # figures and objects
        assert figures[f"{judge}/sampled item"].n == 2
        assert figures[f"{judge}/broken"].n == 2
    assert figures["clip/zero-shot item"].n == 2
    # Where a sample counts towards no bar there is a quarter of them, but one.
    assert figures["samples/objects, subject"].n == 1
    assert figures["samples/negation, none"].n == 1
    for wording in WORDINGS:
        assert figures[f"samples/balloon, {wording}"].n == 1
        assert figures[f"samples/sword, {wording}"].n == (2 if f"samples/sword, {wording}" in THRESHOLDS else 1)
    with_bar = 7
    asked = 2 * with_bar + 23 - with_bar
    assert figures["samples/broken"].n == figures["judges/agree on the sword of samples"].n == asked


@pytest.mark.slow
def test_an_untrained_model_fails(figures: Figures) -> None:
    failed = failed_bars(figures)
    assert any(line.startswith("vae/psnr:") and line.endswith("should be 28.00 dB or more") for line in failed)
    for judge in JUDGES:
        assert any(line.startswith(f"{judge}/drawn colour") for line in failed)


def test_both_judges_have_the_same_bars_and_the_sword_one_in_each_language() -> None:
    bars = {judge: {name.split("/")[1] for name in THRESHOLDS if name.startswith(f"{judge}/")} for judge in JUDGES}
    assert bars["judge"] == bars["judge_b"]
    assert {THRESHOLDS[f"{judge}/{source} item"] for judge in JUDGES for source in ("drawn", "decoded")} == {0.98}
    for wording in ("direct", "synonym", "description", "german", "spanish"):
        assert THRESHOLDS[f"samples/sword, {wording}"] == 0.90
    assert THRESHOLDS["samples/sword, implicit"] == 0.70


@pytest.mark.parametrize(
    ("name", "value", "text"), [("vae/psnr", 28.126, "28.13 dB"), ("samples/figures, item", 0.9204, "92.0 %")]
)
def test_decibels_and_shares_are_shown_as_such(name: str, value: float, text: str) -> None:
    assert shown(name, value) == text


def test_a_model_at_its_bars_passes() -> None:
    assert failed_bars(perfect()) == []


@pytest.mark.parametrize("name", ["judge_b/decoded item", "vae/psnr", "samples/sword, german"])
def test_a_bar_is_missed_by_value_by_absence_and_by_nan(name: str) -> None:
    least = THRESHOLDS[name]
    for worse in (least - 0.001, float("nan")):
        assert len(failed_bars(perfect() | {name: Figure(worse, 0, 99, 600)})) == 1
    absent = {key: figure for key, figure in perfect().items() if key != name}
    assert "not measured" in failed_bars(absent)[0]


def test_the_card_lists_every_file_by_its_hash(model: Path) -> None:
    card.write_card(model, perfect(), RECIPE, STAGES)
    written = read_json(model / "card.json")
    files = {path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_file()}
    assert {entry["path"] for entry in written["files"]} == set(files) - {"card.json", "README.md"}
    for entry in written["files"]:
        assert entry["sha256"] == sha256_of(files[entry["path"]])
        assert entry["bytes"] == files[entry["path"]].stat().st_size
    assert written["bytes"] == sum(entry["bytes"] for entry in written["files"])
    assert (written["licence"], written["seed"]) == ("Apache-2.0", 0)
    assert written["figures"]["vae/psnr"] == {"value": 28.0, "low": 28.0, "high": 28.0, "n": 600}
    assert written["failed"] == []
    assert written["stages"] == STAGES
    assert written["recipe"] == RECIPE


def test_the_page_shows_figures_recipe_hashes_and_limits(model: Path) -> None:
    card.write_card(model, perfect(), RECIPE, STAGES)
    page = (model / "README.md").read_text()
    assert "| samples | sword, german | 90.0 % | 90.0 % – 90.0 % | 600 | ≥ 90.0 % |" in page
    assert "| vae | psnr | 28.00 dB | 28.00 dB – 28.00 dB | 600 | ≥ 28.00 dB |" in page
    assert "| judge_b | drawn item | 98.0 % | 98.0 % – 98.0 % | 600 | ≥ 98.0 % |" in page
    (clip,) = [line for line in page.splitlines() if line.startswith(f"| clip | {Recipe().clip.steps} steps")]
    assert clip.endswith("| 7:52, 2 CPU cores |")
    assert "| 1:02:05, NVIDIA H100 |" in page
    assert "| tokenizer | captions 24000, vocabulary 1200 |  |" in page
    for judge in JUDGES:
        assert sha256_of(model / judge / "model.safetensors") in page
    assert "license: apache-2.0" in page
    assert "## Limits" in page
    assert "Every bar is met." in page


def test_the_page_admits_what_is_missed(model: Path) -> None:
    card.write_card(model, perfect() | {"vae/psnr": Figure(20.0, 19, 21, 600)}, RECIPE)
    page = (model / "README.md").read_text()
    assert "1 of" in page
    assert "vae/psnr: 20.00 dB" in page
    assert "Every bar is met" not in page


def test_a_page_without_times_leaves_their_column_empty(model: Path) -> None:
    card.write_card(model, perfect(), RECIPE)
    assert read_json(model / "card.json")["stages"] is None
    rows = (model / "README.md").read_text().split("## Figures")[0].splitlines()
    assert sum(row.endswith("|  |") for row in rows) == len(RECIPE)


def test_writing_a_card_again_does_not_list_the_old_one(model: Path) -> None:
    card.write_card(model, perfect(), RECIPE)
    first = read_json(model / "card.json")
    card.write_card(model, perfect(), RECIPE)
    assert read_json(model / "card.json")["files"] == first["files"]


@pytest.mark.slow
def test_measuring_and_writing_takes_recipe_and_times_beside_the_folder(model: Path) -> None:
    write_json(model.parent / "recipe.json", RECIPE | {"seed": 7})
    facts = {"loss": "0.5", "seconds": "61.4", "machine": "a machine"}
    write_tensors(model.parent / "vae.safetensors", {"x": torch.zeros(1)}, facts)
    failed = card.measure_and_write(model, count=2, quiet=True)
    written = read_json(model / "card.json")
    assert written["failed"] == failed != []
    assert written["seed"] == 7
    assert written["stages"] == {"vae": {"seconds": 61, "machine": "a machine"}}


def test_a_model_of_unknown_recipe_gets_no_card(model: Path) -> None:
    with pytest.raises(DuoError, match=r"recipe .* is not known") as caught:
        card.measure_and_write(model, count=2, quiet=True)
    assert len(str(caught.value).splitlines()) <= 3
    assert not (model / "card.json").exists()


@pytest.mark.slow
def test_a_sheet_has_a_row_a_prompt(untrained: Path, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    sample_sheet(untrained, path, prompts=("a red knight", "a boat"), columns=3, device=CPU)
    with Image.open(path) as sheet:
        assert sheet.size == (4 + 3 * 132, 4 + 2 * 150)
        assert len(sheet.convert("L").crop((0, 0, 396, 20)).getcolors() or []) > 2  # the prompt stands above its row


def test_the_shipped_model_has_a_card_of_its_own_files_and_passes(shipped: Path) -> None:
    written = read_json(shipped / "card.json")
    for entry in written["files"]:
        assert sha256_of(shipped / entry["path"]) == entry["sha256"], entry["path"]
    found = {name: Figure(**entry) for name, entry in written["figures"].items()}
    assert failed_bars(found) == []
    assert all(found[name].n >= 500 for name in THRESHOLDS)
