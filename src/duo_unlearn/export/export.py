"""Shipping an erased model: an adapter, or a merged model, each loaded back and compared with the run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..arena.groups import prompt_groups
from ..edits.files import StoredAdapter, read_adapter, scaled
from ..edits.lora import NAME, WEIGHTS, load_adapter, set_strength
from ..errors import DuoError
from ..families.interface import Model, SampleRequest
from ..families.load import DTYPES, load_checkpoint, load_model, pick_device
from ..records import Estimate
from ..runs.folder import Run
from ..settings.resolve import resolve_settings
from ..settings.tree import EvaluateSettings, Settings
from ..storage.files import read_json, seed_of, write_json, write_tensors, write_text
from .card import model_card
from .single_file import checkpoint_of

Form = Literal["diffusers", "kohya", "merged", "checkpoint"]
FORMS: Final = get_args(Form)
TOLERANCE: Final = 1.0
"""Mean absolute difference of the images, in levels of 255, up to which an export counts as the same (float32)."""
HALF_TOLERANCE: Final = 4.0
"""The same in half precision, where merging rounds the weights."""
COMPARED: Final = 4
"""Images that are compared."""


class Exported(NamedTuple):
    """An export: its folder, what to load, and the largest mean difference of an image, in levels of 255."""

    folder: Path
    target: Path
    difference: float


def export(
    source: Path,
    folder: Path,
    form: Form,
    *,
    model: str | None = None,
    strength: float = 1.0,
    device: str = "auto",
    precision: str = "no",
) -> Exported:
    """Export the adapter of a run or an adapter folder, load it back, and compare images of both.

    folder: new or empty; it is written whole or not at all. model: the base, where the run does not name it. precision:
    of the weights, no (float32), fp16 or bf16: what a merged model is written in. An export whose images differ is a
    DuoError, and is removed.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise DuoError(f"{folder} is a file", hint="choose another --output")
    if precision not in DTYPES:
        raise DuoError("unknown precision", got=precision, hint=f"one of: {', '.join(DTYPES)}")
    adapter = read_adapter(source)
    settings = _settings(source, adapter, model)
    if folder.exists() and any(folder.iterdir()):
        raise DuoError(f"{folder} is not empty", hint="choose another --output")
    if form == "checkpoint" and adapter.prefix != "unet":
        hint = "--format merged, or --format kohya, which ComfyUI loads for this family"
        raise DuoError(
            "one checkpoint file is made of Stable Diffusion 1, 2 and XL only", got=settings.model, hint=hint
        )
    on, dtype = pick_device(device), DTYPES[precision]
    allowed = TOLERANCE if precision == "no" else HALF_TOLERANCE
    base = _base(settings, on, dtype)
    load_adapter(base, adapter.path, strength=strength)
    requests = _requests(settings)
    expected = _sample(base, requests, settings.evaluate)
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        target = _WRITERS[form](adapter, base, temporary, strength)
        del base
        back = _load_back(form, target, settings, on, dtype)
        difference = _difference(expected, _sample(back, requests, settings.evaluate))
        if difference > allowed:
            got = f"a mean difference of {difference:.2f} of 255, allowed {allowed:g}"
            raise DuoError("the export does not give the same images", got=got, hint="report it with the model's name")
        check = (
            f"Loaded back and compared with the run on {len(requests)} images: the largest mean difference was "
            f"{difference:.3f} of 255 levels (allowed: {allowed:g})."
        )
        card = model_card(
            form,
            folder.name if target == temporary else target.name,
            adapter.provenance,
            _estimates(source),
            strength,
            check,
        )
        write_text(temporary / "README.md", card)
        write_json(temporary / "provenance.json", {**adapter.provenance, "strength": strength, "format": form})
        if folder.exists():
            folder.rmdir()
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(folder, folder / target.relative_to(temporary), difference)


def push_folder(folder: Path, repository: str) -> str:
    """Upload an exported folder to the hub (private unless it is there already); gives its address."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder))
    except Exception as error:  # the hub's client raises many types; each means the same to the user
        hint = "check the name (owner/name), the network and `hf auth login`; the export itself is whole"
        got = f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
        raise DuoError(f"cannot upload to {repository}", got=got, hint=hint) from error


def _settings(source: Path, adapter: StoredAdapter, model: str | None) -> Settings:
    """The run's settings, or, for an adapter alone, the defaults for its concept and base."""
    given = {"model": model} if model is not None else {}
    if Run(source).settings.exists():
        return resolve_settings({"output": str(source)} | given)
    base, concept = adapter.provenance.get("model"), adapter.provenance.get("concept")
    known = {"model": base, "concept": concept} | given
    try:
        return resolve_settings({key: value for key, value in known.items() if isinstance(value, str)})
    except DuoError:  # a concept file that is elsewhere: any prompts will do for comparing images
        return resolve_settings({"model": known["model"]} if isinstance(known.get("model"), str) else {})


def _requests(settings: Settings) -> list[SampleRequest]:
    from ..concepts.store import load_concept

    few = EvaluateSettings(prompts=COMPARED, keep_prompts=COMPARED, neighbour_prompts=1)
    groups = prompt_groups(load_concept(settings.concept), few, settings.seed)
    # Half of them ask for the concept, half must go on working.
    texts = [
        prompt.text for kind in ("attack", "keep") for group in groups if group.kind == kind for prompt in group.prompts
    ]
    chosen = (texts[: COMPARED // 2] + texts[-COMPARED // 2 :]) or ["a picture"]
    return [SampleRequest(text, seed_of(settings.seed, "export", i)) for i, text in enumerate(chosen)]


def _sample(model: Model, requests: Sequence[SampleRequest], settings: EvaluateSettings) -> list[Image.Image]:
    return model.sample(requests, steps=settings.steps, guidance=settings.guidance, batch=1)


def _difference(first: Sequence[Image.Image], second: Sequence[Image.Image]) -> float:
    pairs = zip(first, second, strict=True)
    return max(float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean()) for a, b in pairs)


def _estimates(source: Path) -> list[Estimate]:
    path = Run(source).results
    return [Estimate(**entry) for entry in read_json(path)["estimates"]] if path.exists() else []


def _write_diffusers(adapter: StoredAdapter, _model: Model, folder: Path, strength: float) -> Path:
    scaled(adapter, strength, folder)
    return folder


def _write_kohya(adapter: StoredAdapter, _model: Model, folder: Path, strength: float) -> Path:
    """ComfyUI and A1111 read a UNet's layers under kohya's names; ComfyUI a transformer's under diffusers' own.

    A UNet's file has alpha; a transformer's has it multiplied in, as diffusers' loader refuses such an entry there.
    """
    path = folder / f"{_file_name(adapter)}.safetensors"
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in adapter.layers.items():
        if adapter.prefix == "unet":
            key = "lora_unet_" + name.removeprefix("unet.").replace(".", "_")
            tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"] = down, strength * up
            tensors[f"{key}.alpha"] = torch.tensor(float(adapter.config["lora_alpha"]))
        else:
            tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = down, strength * adapter.scale * up
    described = {"ss_network_dim": str(adapter.config["r"]), "ss_network_alpha": str(adapter.config["lora_alpha"])}
    write_tensors(path, tensors, {**described, "format": "pt"})
    return path


def _write_merged(_adapter: StoredAdapter, model: Model, folder: Path, strength: float) -> Path:
    _merge(model, strength)
    model.pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def _write_checkpoint(adapter: StoredAdapter, model: Model, folder: Path, strength: float) -> Path:
    _merge(model, strength)
    path = folder / f"{_file_name(adapter)}.safetensors"
    write_tensors(path, checkpoint_of(model.pipe), {"format": "pt"})
    return path


_WRITERS: Final = {
    "diffusers": _write_diffusers,
    "kohya": _write_kohya,
    "merged": _write_merged,
    "checkpoint": _write_checkpoint,
}


def _merge(model: Model, strength: float) -> None:
    """W ← W + strength·ΔW in the denoiser, and no adapter left on it."""
    set_strength(model, 1.0)
    model.pipe.fuse_lora(components=[model.denoiser_name], lora_scale=strength, adapter_names=[NAME])
    model.pipe.unload_lora_weights()


def _file_name(adapter: StoredAdapter) -> str:
    name = str(adapter.provenance.get("concept", "concept"))
    return "duo-" + "".join(c if c.isalnum() or c in "-_" else "-" for c in name)


def _base(settings: Settings, device: torch.device, dtype: torch.dtype) -> Model:
    return load_model(settings.model, device, dtype, settings.resolution, settings.checkpoint_config)


def _load_back(form: Form, target: Path, settings: Settings, device: torch.device, dtype: torch.dtype) -> Model:
    if form == "merged":
        return load_model(str(target), device, dtype, settings.resolution)
    if form == "checkpoint":
        config = settings.checkpoint_config or settings.model
        return load_checkpoint(target, config, device, dtype, settings.resolution)
    model = _base(settings, device, dtype)
    path = target / WEIGHTS if form == "diffusers" else target
    model.pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=NAME)
    return model
