"""Which family a model is of, and what its folder lacks: no weights are read into memory, no torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, get_args

from ..errors import DuoError
from ..records import Prediction
from ..storage import read_json

PREDICTIONS: Final = get_args(Prediction)
SUPPORTED: Final = ("StableDiffusionPipeline",)
_PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth")
_WEIGHTED: Final = ("unet", "vae", "text_encoder")
# Of each part, the files of which one must be there; a tokenizer is either in one file or in two.
_NEEDED: Final = {
    **dict.fromkeys(_WEIGHTED, ("config.json",)),
    "scheduler": ("scheduler_config.json",),
    "tokenizer": ("tokenizer.json", "vocab.json"),
}
_AGAIN: Final = "download the model again"


def family_of(source: str) -> str:
    """The settings family of a source, without loading weights: mini, sd1 or sd2. Unsupported ones fail."""
    found, family = model_faults(source)
    if found:
        raise found[0]
    assert family is not None
    return family


def model_faults(source: str) -> tuple[list[DuoError], str | None]:
    """Every fault of a source that can be seen offline, and its family when it can be told."""
    if source == "mini":
        return [], "mini"
    folder = Path(source)
    if not folder.exists():
        if source.count("/") == 1 and not source.startswith((".", "/", "~")) and not folder.parent.exists():
            return [], "sd2" if "stable-diffusion-2" in source else "sd1"  # a hub id: by its name, nothing is fetched
        hint = "mini, a diffusers folder, or a hub id (owner/name)"
        return [DuoError(f"there is no model folder {source}", hint=hint)], None
    index = folder / "model_index.json"
    if not index.exists():
        hint = "point at the folder that holds model_index.json (a model in diffusers format)"
        return [DuoError(f"{folder} is not a diffusers model", got="no model_index.json in it", hint=hint)], None
    try:
        check_class(str(folder), read_json(index))
    except DuoError as error:
        return [error], None
    found = _missing(folder) + [fault for part in _WEIGHTED for fault in _weight_faults(folder / part)]
    family = None
    for check in (_family, _prediction):
        try:
            family = check(folder) or family
        except DuoError as error:
            found.append(error)
    return found, family


def _missing(folder: Path) -> list[DuoError]:
    return [
        DuoError(f"{folder} is not complete", got=f"no {part}/{' or '.join(names)}", hint=_AGAIN)
        for part, names in _NEEDED.items()
        if not any((folder / part / name).exists() for name in names)
    ]


def _weight_faults(part: Path) -> list[DuoError]:
    from safetensors import SafetensorError, safe_open

    if not (part / "config.json").exists():
        return []  # said already
    files = sorted(part.glob("*.safetensors"))
    if not files:
        pickled = [p.name for p in part.iterdir() if p.suffix in _PICKLES]
        got = f"{part.name}/{pickled[0]}, a pickle that could run code" if pickled else f"no weights in {part.name}/"
        hint = "load it with diffusers where you trust it, and save_pretrained(..., safe_serialization=True)"
        return [DuoError(f"{part.parent} has no safetensors weights", got=got, hint=hint if pickled else _AGAIN)]
    found = []
    for file in files:
        try:
            # Reads the header and compares the file's size with it.
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            found.append(DuoError(f"{file} is damaged", got=str(error)[:150], hint=_AGAIN))
    return found


def _family(folder: Path) -> str | None:
    path = folder / "unet" / "config.json"
    if not path.exists():
        return None
    config = read_json(path)
    width = config.get("cross_attention_dim") if isinstance(config, dict) else None
    if not isinstance(width, int):
        got = f"cross_attention_dim {width!r} in unet/config.json"
        raise DuoError(f"{folder} is no Stable Diffusion 1.x or 2.x model", got=got, hint=" or ".join(SUPPORTED))
    # SD 1.x reads CLIP ViT-L (768), SD 2.x OpenCLIP ViT-H (1024); a smaller one is the mini model's kind.
    return {768: "sd1", 1024: "sd2"}.get(width, "mini")


def _prediction(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.exists():
        return
    config = read_json(path)
    name = config.get("prediction_type", "epsilon") if isinstance(config, dict) else None
    if name not in PREDICTIONS:
        got = f"prediction_type {name!r} in scheduler/scheduler_config.json"
        raise DuoError(f"{folder} predicts what DUO has no target for", got=got, hint=" or ".join(PREDICTIONS))


def variant_of(folder: Path) -> str | None:
    """fp16 when some part has its weights in that variant only (as a half-precision download has), else None."""
    for part in _WEIGHTED:
        names = [file.name for file in (folder / part).glob("*.safetensors")]
        if names and all(".fp16." in name or ".fp16-" in name for name in names):
            return "fp16"
    return None


def check_class(source: str, index: Any) -> None:
    """Fail for a model_index.json whose pipeline class is not supported."""
    name = index.get("_class_name") if isinstance(index, dict) else None
    if name not in SUPPORTED:
        raise DuoError(f"{source} is of an unsupported pipeline class", got=str(name), hint=" or ".join(SUPPORTED))
