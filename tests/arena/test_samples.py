"""The sheet of `duo sample`: base, edit and systems side by side from the same noise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from duo_unlearn.arena.samples import sample_sheet
from duo_unlearn.errors import DuoError
from duo_unlearn.families.load import load_model
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.tree import as_yaml, resolve
from duo_unlearn.storage.files import write_text

from ..random_adapter import random_adapter

PROMPTS = ["a red knight with a sword", "a blue king"]
FEW: dict[str, Any] = {"count": 2, "steps": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with settings and a random adapter."""
    run = Run(tmp_path_factory.mktemp("samples") / "run")
    random_adapter(load_model("mini", torch.device("cpu")), run.edit("duo"), concept="sword", model="mini")
    write_text(run.settings, as_yaml(resolve({"output": str(run.folder)})))
    return run.folder


def row(page: Image.Image, number: int) -> bytes:
    """The pixels of a row of two images."""
    return page.crop((0, 64 * number, 128, 64 * (number + 1))).tobytes()


def sampled(path: Path, prompts: list[str], **options: Any) -> Image.Image:
    sample_sheet(prompts, path, **FEW, **options)
    return Image.open(path)


@pytest.mark.slow
def test_the_base_above_the_edit_from_the_same_noise(folder: Path, tmp_path: Path) -> None:
    both = sampled(tmp_path / "both.png", PROMPTS, adapter=folder, compare=True)
    base = sampled(tmp_path / "base.png", PROMPTS, model="mini")
    assert (both.size, base.size) == ((128, 256), (128, 128))
    assert row(both, 0) == row(base, 0)
    assert row(both, 1) != row(base, 0)
    assert row(both, 2) == row(base, 1)


@pytest.mark.slow
def test_an_edit_by_its_run_its_folder_and_its_file_and_at_a_strength(folder: Path, tmp_path: Path) -> None:
    places = [folder, Run(folder).edit("duo"), Run(folder).edit("duo") / "pytorch_lora_weights.safetensors"]
    pages = [row(sampled(tmp_path / "a.png", PROMPTS[:1], adapter=place), 0) for place in places]
    assert pages[0] == pages[1] == pages[2]
    off = sampled(tmp_path / "b.png", PROMPTS[:1], adapter=folder, strength=0, compare=True)
    assert row(off, 0) == row(off, 1)
    assert row(off, 0) != pages[0]


@pytest.mark.slow
def test_any_system_of_a_run(folder: Path, tmp_path: Path) -> None:
    plain = row(sampled(tmp_path / "a.png", PROMPTS[:1], adapter=folder), 0)
    both = sampled(tmp_path / "b.png", PROMPTS[:1], adapter=folder, system="duo+negative-prompt", compare=True)
    assert row(sampled(tmp_path / "c.png", PROMPTS[:1], adapter=folder, system="duo"), 0) == plain
    assert row(sampled(tmp_path / "d.png", PROMPTS[:1], adapter=folder, system="original"), 0) == row(both, 0)
    assert len({plain, row(both, 0), row(both, 1)}) == 3
    guarded = sampled(tmp_path / "e.png", PROMPTS[:1], adapter=folder, system="duo+negative-prompt", strength=0)
    alone = sampled(tmp_path / "f.png", PROMPTS[:1], adapter=folder, system="negative-prompt")
    assert row(guarded, 0) == row(alone, 0)


def test_what_cannot_be_sampled(folder: Path, tmp_path: Path) -> None:
    for options, said in (
        ({"compare": True}, "nothing to compare"),
        ({"strength": 2.0}, "a strength is that of an edit"),
        ({"system": "duo"}, "a system is one of a run"),
        ({"adapter": tmp_path, "system": "duo"}, "is no run folder"),
        ({"adapter": folder, "system": "esd"}, "unknown system"),
        ({"adapter": folder, "system": "duo", "model": "mini"}, "on the model of its run"),
        ({"adapter": tmp_path}, "there is no edit in"),
        ({"adapter": folder, "strength": float("nan")}, "the strength must be a finite number"),
        ({"guidance": float("inf")}, "the guidance must be a finite number"),
    ):
        with pytest.raises(DuoError, match=said):
            sample_sheet(PROMPTS, tmp_path / "none.png", **FEW, **options)
    with pytest.raises(DuoError, match="a prompt is not UTF-8"):
        sample_sheet([os.fsdecode(b"a caf\xe9")], tmp_path / "none.png", **FEW)
    assert not (tmp_path / "none.png").exists()
    (tmp_path / "results.json").write_text("{}")
    for path in (tmp_path, tmp_path / "results.json"):
        with pytest.raises(DuoError, match="written as one PNG"):
            sample_sheet(PROMPTS, path, **FEW)
    assert (tmp_path / "results.json").read_text() == "{}"
