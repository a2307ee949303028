"""Exporting: every family, the card, strength and precision, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from duo_unlearn.arena.verify import verify
from duo_unlearn.edits.files import read_edit, write_changes
from duo_unlearn.edits.weights import Replacement
from duo_unlearn.errors import DuoError
from duo_unlearn.export.export import export, push_folder
from duo_unlearn.export.registry import FORMATS
from duo_unlearn.export.same_images import check_same
from duo_unlearn.families.load import load_checkpoint, load_model
from duo_unlearn.records import Estimate, Source
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.results import write_results
from duo_unlearn.settings.source import edit_source, settings_of
from duo_unlearn.storage.files import write_json
from duo_unlearn.system import EditFile, System

from ..families import small_models as small
from ..families.small_llms import LLMS
from ..slow import slow, slow_but
from .edited_run import CPU, add_weight_edits, plain_pixels, run_folder

SOURCES: dict[str, Callable[[Path], Path]] = {"sdxl": small.sdxl, "sd3": small.sd3, "flux": small.flux, **LLMS}


@pytest.fixture(scope="module", params=slow_but(SOURCES, ("sdxl",)))
def family_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small model of a family; the folder's parent is named after it."""
    folder = tmp_path_factory.mktemp(request.param)
    return run_folder(str(SOURCES[request.param](folder / "model")), folder / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the mini model, which no test changes."""
    return run_folder("mini", tmp_path_factory.mktemp("mini") / "run")


@pytest.mark.parametrize(
    "form", [pytest.param(name, marks=() if name == "diffusers" else pytest.mark.slow) for name in FORMATS.names()]
)
def test_an_export_of_every_family_gives_the_same_images(family_run: Path, form: str, tmp_path: Path) -> None:
    if form == "checkpoint" and not family_run.parent.name.startswith("sdxl"):
        with pytest.raises(DuoError, match="cannot hold") as caught:
            export(family_run, tmp_path / "out", form)
        assert "unet" in str(caught.value.got)
        assert not (tmp_path / "out").exists()
        return
    done = export(family_run, tmp_path / "out", form, strength=0.7)
    assert done.target.exists()
    assert done.difference < 0.3
    assert {check.outcome for check in verify(done.folder, device="cpu").checks} == {"agrees"}


@pytest.mark.slow
def test_the_card_tells_this_edits_numbers_alone(tmp_path: Path) -> None:
    folder = run_folder("mini", tmp_path / "run")
    edit = read_edit(Run(folder).edit("duo"))
    own = System((EditFile("duo", Run(folder).edit("duo"), edit.sha256),))

    def estimate(metric: str, system: str, sha256: str, attack: str | None = None) -> Estimate:
        source = Source(system, sha256, "direct", attack, attack and "quick", None, "judge[x]", (0,))
        return Estimate.of(metric, source, 0.5, 0.25, 0.75, 8)

    estimates = [
        estimate("dsr", "original", System().sha256),
        estimate("dsr", "duo", own.sha256),
        estimate("dsr", "duo", own.sha256, "p4d"),
        estimate("stale", "duo", "0" * 64),
        estimate("guarded", "duo+negative-prompt", "1" * 64),
    ]
    systems = [own.as_json()]
    write_results(
        Run(folder), concept="sword", model="mini", seed=0, quick=True, systems=systems, estimates=estimates, absent=[]
    )
    export(folder, tmp_path / "out", "diffusers")
    results = (tmp_path / "out" / "README.md").read_text().split("## Results")[1].split("##")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in results.split("\n") if "|" in line]
    assert rows[0] == ["metric", "scenario", "attack", "preset", "system", "value [95 % interval]", "n", "judged by"]
    assert rows[2:] == [
        ["dsr", "direct", "–", "–", "original", "0.500 [0.250, 0.750]", "8", "`judge[x]`"],
        ["dsr", "direct", "–", "–", "duo", "0.500 [0.250, 0.750]", "8", "`judge[x]`"],
        ["dsr", "direct", "p4d", "quick", "duo", "0.500 [0.250, 0.750]", "8", "`judge[x]`"],
    ]
    export(Run(folder).edit("duo"), tmp_path / "half", "diffusers", strength=0.5)
    assert "Measured at strength 1, not at 0.5." in (tmp_path / "half" / "README.md").read_text()
    # Numbers of an adapter that is there no more are not told of this one.
    other = run_folder("mini", tmp_path / "run", seed=4)
    export(other, tmp_path / "other", "diffusers")
    assert "Not measured" in (tmp_path / "other" / "README.md").read_text()


@pytest.mark.slow
def test_the_change_is_there_and_follows_the_strength(run: Path, tmp_path: Path) -> None:
    """Without it, an export that writes the base alone would pass as "the same images"."""
    base = plain_pixels(load_model("mini", CPU).pipe)
    merged = {}
    for strength in (0.0, 1.0):
        target = export(run, tmp_path / f"out-{strength}", "merged", strength=strength).target
        merged[strength] = plain_pixels(load_model(str(target), CPU).pipe)
    single = export(run, tmp_path / "single", "checkpoint").target
    assert np.abs(merged[0.0] - base).max() <= 1
    assert np.abs(merged[1.0] - base).mean() > 3
    loaded = load_checkpoint(single, "mini", CPU)
    assert np.abs(plain_pixels(loaded.pipe) - merged[1.0]).max() <= 2
    assert not any("lora" in name for name in loaded.denoiser.state_dict())


@pytest.mark.slow
def test_kohyas_file_has_its_names_and_the_right_alpha(run: Path, tmp_path: Path) -> None:
    done = export(run, tmp_path / "out", "kohya")
    tensors = load_file(done.target)
    assert done.target.name == "duo-sword.safetensors"
    bases = {name.split(".")[0] for name in tensors}
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q" in bases
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0" in bases
    assert {float(value) for name, value in tensors.items() if name.endswith(".alpha")} == {3.0}
    assert all({f"{b}.lora_down.weight", f"{b}.lora_up.weight", f"{b}.alpha"} <= set(tensors) for b in bases)


@pytest.mark.slow
def test_an_exported_adapter_is_an_edit_again(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    done = export(run, Run(other).edit("duo"), "diffusers", strength=0.5)
    assert read_edit(done.target).provenance["concept"] == "sword"
    shutil.copy(run / "settings.yaml", other)
    second, direct = export(other, tmp_path / "a", "merged"), export(run, tmp_path / "b", "merged", strength=0.5)
    first, wanted = (load_file(d.target / "unet" / "diffusion_pytorch_model.safetensors") for d in (second, direct))
    torch.testing.assert_close(first, wanted)


@pytest.mark.slow
def test_an_export_in_half_precision_is_half_as_large(run: Path, tmp_path: Path) -> None:
    """Half a minute: processors are slow in half precision."""
    done = [export(run, tmp_path / p, "merged", precision=p) for p in ("no", "bf16")]
    sizes = [sum(file.stat().st_size for file in one.target.rglob("*.safetensors")) for one in done]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.02)


def test_which_edit_of_a_run(tmp_path: Path) -> None:
    run = Run(run_folder("mini", tmp_path / "run"))
    add_weight_edits(run.folder)
    assert edit_source(run.folder).name == "duo"
    assert edit_source(run.folder, "uce").place == run.edit("uce")
    for place in (run.edit("uce"), run.edit("uce") / "weight_changes.safetensors"):
        found = edit_source(place)
        assert (found.name, found.place, found.run and found.run.folder) == ("uce", place, run.folder)
        with pytest.raises(DuoError, match="is one edit"):
            edit_source(place, "duo")
    with pytest.raises(DuoError, match="there is no edit in") as caught:
        edit_source(run.folder, "esd")
    assert "duo, text, uce" in str(caught.value)
    run.settings.unlink()
    with pytest.raises(DuoError, match="there is no edit in"):  # one of several must be named
        edit_source(run.folder)
    shutil.rmtree(run.edit("uce"))
    shutil.rmtree(run.edit("duo"))
    assert edit_source(run.folder).name == "text"  # the only one


def test_an_edit_by_itself_has_the_settings_of_its_concept_and_base(run: Path, tmp_path: Path) -> None:
    shutil.copytree(Run(run).edit("duo"), tmp_path / "alone")
    source = edit_source(tmp_path / "alone")
    assert (source.name, source.run) == ("alone", None)
    provenance = read_edit(source.place).provenance
    assert settings_of(source, provenance).concept == "sword"
    assert settings_of(source, {**provenance, "concept": "my/own.yaml"}).concept == "sword"  # the default's prompts do
    assert settings_of(source, {**provenance, "concept": "balloon"}).concept == "balloon"


@pytest.mark.parametrize("fault", ["flat", *slow(["nan"])])
def test_images_that_are_none_never_pass_as_the_same(fault: str, tmp_path: Path) -> None:
    """Two broken models give the same images: flat ones, or none."""
    folder = run_folder("mini", tmp_path / "run")
    model = load_model("mini", CPU)
    name, value = next((n, p) for n, p in model.denoiser.named_parameters() if n.startswith("conv_out.weight"))
    if fault == "flat":
        vae = dict(model.pipe.vae.named_parameters())
        zero = {f"vae.{key}": Replacement(torch.zeros_like(vae[key])) for key in ("decoder.conv_out.weight",)}
        write_changes(Run(folder).edit("broken"), zero, {"base": model.fingerprint()})
    else:
        # Finite in the file, and beyond what the sampling can hold.
        huge = {f"unet.{name}": Replacement(torch.full_like(value, 3e38))}
        write_changes(Run(folder).edit("broken"), huge, {"base": model.fingerprint()})
    with pytest.raises(DuoError, match="gives no picture") as caught:
        export(folder, tmp_path / "out", "merged", edit="broken")
    assert ("flat" if fault == "flat" else "not finite") in str(caught.value.got)
    assert not (tmp_path / "out").exists()


def test_images_that_differ_are_refused() -> None:
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("black", "white"))
    assert check_same([first], [first], 1.0) == 0
    with pytest.raises(DuoError, match="does not give the same images") as caught:
        check_same([first, first], [first, second], 1.0)
    assert "255.00 of 255" in str(caught.value.got)


def test_what_exporting_refuses(tmp_path: Path) -> None:
    run = run_folder("mini", tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(DuoError, match="is a file"):
        export(run, tmp_path / "full" / "mine.txt", "diffusers")
    with pytest.raises(DuoError, match="unknown precision"):
        export(run, tmp_path / "out", "diffusers", precision="half")
    with pytest.raises(DuoError, match="unknown export format"):
        export(run, tmp_path / "out", "onnx")
    with pytest.raises(DuoError, match="strength must be a number"):
        export(run, tmp_path / "out", "diffusers", strength=float("nan"))
    key = "text_encoder.text_model.encoder.layers.0.self_attn.v_proj.weight"
    write_changes(Run(run).edit("whole"), {key: Replacement(torch.zeros(4, 4))}, {"model": "mini"})
    with pytest.raises(DuoError, match="cannot hold the edit whole") as caught:
        export(run, tmp_path / "out", "kohya", edit="whole")
    assert caught.value.hint == "--format merged or checkpoint"
    with pytest.raises(DuoError, match="is not empty"):
        export(run, tmp_path / "full", "diffusers")
    with pytest.raises(DuoError, match="there is no edit in"):
        export(tmp_path / "full", tmp_path / "out", "diffusers")
    provenance = Run(run).edit("duo") / "provenance.json"
    write_json(provenance, {"base": "0123456789abcdef", "model": "mini", "concept": "sword"})
    with pytest.raises(DuoError, match="another base model"):
        export(run, tmp_path / "out", "merged")
    write_json(provenance, {"sha256": "0" * 64})
    with pytest.raises(DuoError, match="not the file that was written"):
        export(run, tmp_path / "out", "merged")
    (tmp_path / "old" / "adapter").mkdir(parents=True)
    with pytest.raises(DuoError, match="older form"):
        export(tmp_path / "old", tmp_path / "out", "merged")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    with pytest.raises(DuoError, match="cannot upload"):
        push_folder(run, "nobody/nothing")
