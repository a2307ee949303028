"""The contract of every export format: plain diffusers loads it and gives the edit's images, or it says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from duo_unlearn.edits.files import read_edit
from duo_unlearn.errors import DuoError
from duo_unlearn.export.export import export
from duo_unlearn.export.registry import FORMATS
from duo_unlearn.families.load import load_model
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import read_json, sha256_of

from .edited_run import CPU, EDITS, add_weight_edits, plain_pixels, run_folder

STRENGTH = 0.7


def _base() -> Any:
    return StableDiffusionPipeline.from_pretrained(weights_folder(), dtype=torch.float32, safety_checker=None)


def _with_adapter(target: Path) -> Any:
    pipe = _base()
    pipe.load_lora_weights(target)
    return pipe


def _whole(target: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(target, dtype=torch.float32, use_safetensors=True)


def _one_file(target: Path) -> Any:
    return StableDiffusionPipeline.from_single_file(
        str(target), config=str(weights_folder()), local_files_only=True, dtype=torch.float32, safety_checker=None,
        requires_safety_checker=False,
    )  # fmt: skip


LOADERS: dict[str, Callable[[Path], Any]] = {
    "diffusers": _with_adapter,
    "kohya": _with_adapter,
    "merged": _whole,
    "checkpoint": _one_file,
}
"""How anyone loads each format, without this package."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = run_folder("mini", tmp_path_factory.mktemp("contract") / "run")
    add_weight_edits(folder)
    return folder


@pytest.fixture(scope="module")
def wanted(run: Path) -> dict[str, np.ndarray]:
    """The image of each edit on its base, and of the base itself, as "original"."""
    model, images = load_model("mini", CPU), {}
    images["original"] = plain_pixels(model.pipe)
    for name in EDITS:
        with read_edit(Run(run).edit(name), name, strength=STRENGTH).on(model):
            images[name] = plain_pixels(model.pipe)
    return images


def test_every_format_is_under_test() -> None:
    assert list(LOADERS) == FORMATS.names()
    for name in FORMATS.names():
        form = FORMATS.get(name)
        assert form.name == name
        assert form.title
        assert "FOLDER" in form.loading or "FILE" in form.loading
        assert form.takes <= {"lora", "low-rank", "weights"}
        assert "lora" in form.takes


def check_card(card: str, form: str, name: str, target: str) -> None:
    """The model card says what it is and how it is loaded."""
    whole = form in ("merged", "checkpoint")
    assert ("cannot be unloaded" if whole else "can leave this adapter out") in card
    assert ("DUO: direct unlearning optimization" in card) == (name == "duo")
    assert f"at strength {STRENGTH}" in card
    assert "Not measured" in card
    assert target in card.split("## Loading")[1].split("##")[0]
    assert ".part" not in card
    assert "* model: mini" in card


# A LoRA in diffusers' format, fast; the other combinations are slow.
@pytest.mark.parametrize(
    ("form", "name"),
    [
        pytest.param(form, name, marks=() if (form, name) == ("diffusers", "duo") else pytest.mark.slow)
        for form in FORMATS.names()
        for name in EDITS
    ],
)
def test_an_export_is_the_edit_or_is_refused(
    form: str, name: str, run: Path, wanted: dict[str, np.ndarray], tmp_path: Path
) -> None:
    edit = read_edit(Run(run).edit(name), name)
    assert edit.kind == EDITS[name]
    if edit.kind not in FORMATS.get(form).takes:
        with pytest.raises(DuoError, match=f"the format {form} cannot hold the edit {name}") as caught:
            export(run, tmp_path / "out", form, edit=name)
        assert "full change of weights" in str(caught.value.got)
        assert "merged" in str(caught.value.hint)
        assert not list(tmp_path.iterdir())
        return
    done = export(run, tmp_path / "out", form, edit=name, strength=STRENGTH)
    assert done.difference < 0.3
    found = plain_pixels(LOADERS[form](done.target))
    assert np.abs(found - wanted[name]).max() <= 2
    assert np.abs(found - wanted["original"]).mean() > 1  # or an export of the base alone would pass
    provenance = read_json(done.folder / "provenance.json")
    assert (provenance["edit"], provenance["edit_sha256"]) == (name, edit.sha256)
    assert (provenance["format"], provenance["strength"]) == (form, STRENGTH)
    hashes = provenance.get("files") or {done.target.name if done.target.is_file() else "": provenance["sha256"]}
    for file, sha256 in hashes.items():
        path = done.folder / file if file else next(done.folder.glob("*.safetensors"))
        assert sha256_of(path) == sha256
    check_card((done.folder / "README.md").read_text(), form, name, done.target.name)
    assert not list(tmp_path.rglob("*.bin"))
