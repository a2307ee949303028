"""Composing and exporting: exact sums, and exports that give the same images when they are loaded back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from duo_unlearn.edits.files import compose, read_adapter
from duo_unlearn.edits.lora import load_adapter
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.interference import compose_runs, measure
from duo_unlearn.export.export import FORMS, Form, export, push_folder
from duo_unlearn.families.interface import Model, SampleRequest
from duo_unlearn.families.load import load_checkpoint, load_model
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.storage.files import write_json, write_text

from ..families import small_models as small
from ..random_adapter import random_adapter

CPU = torch.device("cpu")
REQUEST = SampleRequest("a red knight holding a sword in the snow", 7)


def pixels(model: Model) -> np.ndarray:
    return np.asarray(model.sample([REQUEST], steps=4, guidance=4.0, batch=1)[0]).astype(int)


def adapter(source: str, folder: Path, *, rank: int, seed: int, concept: str = "sword") -> Path:
    """A run folder with a random adapter whose alpha is not its rank."""
    model = load_model(source, CPU, resolution=None if source == "mini" else small.RESOLUTION)
    random_adapter(model, folder / "adapter", size=0.15, rank=rank, seed=seed, concept=concept, model=source)
    few = {
        "evaluate": {"steps": 3, "guidance": 4.0, "batch": 4, "prompts": 2, "keep_prompts": 2, "neighbour_prompts": 1}
    }
    resolution = {} if source == "mini" else {"resolution": small.RESOLUTION}
    write_text(folder / "settings.yaml", json.dumps({"model": source, "concept": concept, **few, **resolution}))
    return folder


def test_the_sum_is_exact(tmp_path: Path) -> None:
    a, b = adapter("mini", tmp_path / "a", rank=3, seed=1), adapter("mini", tmp_path / "b", rank=5, seed=2)
    first, second = read_adapter(a)._replace(scale=2.0), read_adapter(b)
    compose([first, second], [1.5, -0.5], tmp_path / "both")
    both = read_adapter(tmp_path / "both")
    assert (both.config["r"], both.scale) == (8, 1.0)
    for name, (down, up) in both.layers.items():
        wanted = (
            1.5 * 2.0 * first.layers[name][1] @ first.layers[name][0]
            - 0.5 * second.layers[name][1] @ second.layers[name][0]
        )
        torch.testing.assert_close(up @ down, wanted, rtol=1e-4, atol=1e-6)


def test_a_layer_that_one_leaves_alone_counts_as_zero(tmp_path: Path) -> None:
    a, b = adapter("mini", tmp_path / "a", rank=2, seed=1), adapter("mini", tmp_path / "b", rank=2, seed=2)
    first = read_adapter(a)
    name = min(first.layers)
    compose([first._replace(layers={name: first.layers[name]}), read_adapter(b)], [1.0, 0.0], tmp_path / "both")
    both = read_adapter(tmp_path / "both").layers
    torch.testing.assert_close(both[name][1] @ both[name][0], first.layers[name][1] @ first.layers[name][0])
    other = max(both)
    assert not (both[other][1] @ both[other][0]).any()
    load_adapter(load_model("mini", CPU), tmp_path / "both")


def test_interference_is_measured_on_each_concept(tmp_path: Path) -> None:
    runs = [adapter("mini", tmp_path / n, rank=2, seed=i, concept=n) for i, n in enumerate(("sword", "balloon"))]
    compose_runs(runs, [], tmp_path / "both")
    rows = measure(runs, tmp_path / "both", {"prompts": 2}, quiet=True)
    assert {row["concept"] for row in rows} == {"sword", "balloon"}
    asked = [row for row in rows if row["prompts"] == "direct" and row["metric"] == "dsr"]
    assert all({"original", "composed"} <= set(row) and "alone" not in row for row in asked)
    assert all(row["composed"]["n"] == 2 for row in asked)
    assert json.loads((tmp_path / "both" / "interference.json").read_text())["rows"] == rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda runs: runs[:1], "two adapters or more"),
        (lambda runs: [runs[0], runs[0].parent], "there is no adapter"),
    ],
)
def test_what_composing_refuses(tmp_path: Path, change: Callable[[list[Path]], list[Path]], said: str) -> None:
    runs = [adapter("mini", tmp_path / n, rank=2, seed=1) for n in ("a", "b")]
    with pytest.raises(DuoError, match=said):
        compose_runs(change(runs), [], tmp_path / "both")
    with pytest.raises(DuoError, match="one weight an adapter"):
        compose_runs(runs, [1.0], tmp_path / "both")
    known = json.loads((runs[1] / "adapter" / "provenance.json").read_text())
    write_json(runs[1] / "adapter" / "provenance.json", known | {"base": "0123456789abcdef"})
    with pytest.raises(DuoError, match="different base models"):
        compose_runs(runs, [], tmp_path / "both")
    assert not (tmp_path / "both").exists()


SOURCES: dict[str, Callable[[Path], str]] = {
    "mini": lambda _folder: "mini",
    "sdxl": lambda folder: str(small.sdxl(folder)),
    "sd3": lambda folder: str(small.sd3(folder)),
    "flux": lambda folder: str(small.flux(folder)),
}


@pytest.fixture(scope="module", params=sorted(SOURCES))
def run_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return adapter(SOURCES[request.param](folder / "model"), folder / "run", rank=3, seed=3)


@pytest.mark.parametrize("form", FORMS)
def test_an_export_gives_the_same_images(run_folder: Path, form: Form, tmp_path: Path) -> None:
    if form == "checkpoint" and run_folder.parent.name.startswith(("sd3", "flux")):
        with pytest.raises(DuoError, match="Stable Diffusion 1, 2 and XL only"):
            export(run_folder, tmp_path / "out", form)
        return
    done = export(run_folder, tmp_path / "out", form, strength=0.7)
    assert done.target.exists()
    assert done.difference < 0.3
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("cannot be unloaded" if form in ("merged", "checkpoint") else "can leave this adapter out") in card
    assert "Not measured" in card
    assert done.target.name in card.split("## Loading")[1].split("##")[0]
    assert ".part" not in card
    assert not list(tmp_path.rglob("*.bin"))


def test_the_change_is_there_and_follows_the_strength(tmp_path: Path) -> None:
    """Without it, an export that writes the base alone would pass as "the same images"."""
    run, base = adapter("mini", tmp_path / "run", rank=3, seed=3), pixels(load_model("mini", CPU))
    shutil.copytree(weights_folder(), tmp_path / "config")
    merged = {}
    for strength in (0.0, 1.0):
        target = export(run, tmp_path / f"out-{strength}", "merged", strength=strength).target
        merged[strength] = pixels(load_model(str(target), CPU))
    single = export(run, tmp_path / "single", "checkpoint").target
    assert np.abs(merged[0.0] - base).max() <= 1
    assert np.abs(merged[1.0] - base).mean() > 3
    loaded = load_checkpoint(single, str(tmp_path / "config"), CPU)
    assert np.abs(pixels(loaded) - merged[1.0]).max() <= 2
    assert not any("lora" in name for name in loaded.denoiser.state_dict())


def test_kohyas_file_has_its_names_and_the_right_alpha(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run = adapter("mini", tmp_path / "run", rank=3, seed=3)
    tensors = load_file(export(run, tmp_path / "out", "kohya").target)
    bases = {name.split(".")[0] for name in tensors}
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q" in bases
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0" in bases
    assert {float(value) for name, value in tensors.items() if name.endswith(".alpha")} == {3.0}
    assert all({f"{b}.lora_down.weight", f"{b}.lora_up.weight", f"{b}.alpha"} <= set(tensors) for b in bases)


def test_composing_leaves_a_trained_adapter_alone(tmp_path: Path) -> None:
    runs = [adapter("mini", tmp_path / n, rank=2, seed=i) for i, n in enumerate(("a", "b", "c"))]
    before = (runs[2] / "adapter" / "provenance.json").read_bytes()
    for target in (runs[0], runs[2]):
        with pytest.raises(DuoError, match="holds another adapter"):
            compose_runs(runs[:2], [], target)
    assert (runs[2] / "adapter" / "provenance.json").read_bytes() == before
    compose_runs(runs[:2], [], tmp_path / "both")
    compose_runs(runs[:2], [1.0, 0.5], tmp_path / "both")


def test_an_export_in_half_precision_is_half_as_large(tmp_path: Path) -> None:
    run = adapter("mini", tmp_path / "run", rank=2, seed=3)
    done = [export(run, tmp_path / p, "merged", precision=p) for p in ("no", "bf16")]
    sizes = [sum(file.stat().st_size for file in one.target.rglob("*.safetensors")) for one in done]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.02)


def test_what_exporting_refuses(tmp_path: Path) -> None:
    run = adapter("mini", tmp_path / "run", rank=2, seed=3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(DuoError, match="is a file"):
        export(run, tmp_path / "full" / "mine.txt", "diffusers")
    with pytest.raises(DuoError, match="unknown precision"):
        export(run, tmp_path / "out", "diffusers", precision="half")
    with pytest.raises(DuoError, match="is not empty"):
        export(run, tmp_path / "full", "diffusers")
    write_json(run / "adapter" / "provenance.json", {"base": "0123456789abcdef", "model": "mini", "concept": "sword"})
    with pytest.raises(DuoError, match="another base model"):
        export(run, tmp_path / "out", "merged")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    with pytest.raises(DuoError, match="cannot upload"):
        push_folder(run, "nobody/nothing")
