"""Which family a model is of, and what its folder lacks: no weights are read into memory, no torch is imported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from ..errors import DuoError
from ..records import Prediction
from ..storage.files import read_json
from .checkpoint import checkpoint_family

PREDICTIONS: Final = get_args(Prediction)


class Layout(NamedTuple):
    """What a pipeline's folder must hold. optional: parts that model_index.json may leave out."""

    family: str
    denoiser: str
    encoders: int
    optional: tuple[str, ...] = ()

    @property
    def weighted(self) -> tuple[str, ...]:
        """Folders that hold weights."""
        return (self.denoiser, "vae", *(_numbered("text_encoder", i) for i in range(self.encoders)))

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """Folders of the tokenizers."""
        return tuple(_numbered("tokenizer", i) for i in range(self.encoders))


def _numbered(name: str, index: int) -> str:
    return f"{name}_{index + 1}" if index else name


LAYOUTS: Final = {
    "StableDiffusionPipeline": Layout("sd1", "unet", 1),
    "StableDiffusionXLPipeline": Layout("sdxl", "unet", 2),
    "StableDiffusion3Pipeline": Layout("sd3", "transformer", 3, ("text_encoder_3", "tokenizer_3")),
    "FluxPipeline": Layout("flux", "transformer", 2),
}
SUPPORTED: Final = tuple(LAYOUTS)
READS_CLIP_ALONE: Final = ("mini", "sd1", "sd2", "sdxl")
"""Families whose prompts are tokens of CLIP and nothing else: `token` reaches their text encoders."""
_PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth")
_AGAIN: Final = "download the model again"
_HUB_WORDS: Final = (
    ("stable-diffusion-xl", "sdxl"),
    ("sdxl", "sdxl"),
    ("stable-diffusion-3", "sd3"),
    ("flux", "flux"),
    ("stable-diffusion-2", "sd2"),
    ("-xl", "sdxl"),
)


def family_of(source: str) -> str:
    """The settings family of a source, without loading weights. Unsupported ones fail."""
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
    if folder.suffix in (".safetensors", *_PICKLES) and not folder.is_dir():
        return _file_faults(folder)
    if not folder.exists():
        if source.count("/") == 1 and not source.startswith((".", "/", "~")) and not folder.parent.exists():
            # A hub id: by its name, nothing is fetched.
            return [], next((family for word, family in _HUB_WORDS if word in source.lower()), "sd1")
        hint = "mini, a diffusers folder, a .safetensors checkpoint, or a hub id (owner/name)"
        return [DuoError(f"there is no model folder {source}", hint=hint)], None
    index = folder / "model_index.json"
    if not index.exists():
        hint = "point at the folder that holds model_index.json (a model in diffusers format)"
        return [DuoError(f"{folder} is not a diffusers model", got="no model_index.json in it", hint=hint)], None
    try:
        described = read_json(index)
        layout = layout_of(str(folder), described)
    except DuoError as error:
        return [error], None
    absent = absent_parts(layout, described)
    present = [part for part in layout.weighted if part not in absent]
    tokenizers = [part for part in layout.tokenizers if part not in absent]
    found = _missing(folder, present, tokenizers)
    found += [fault for part in present for fault in _weight_faults(folder / part)]
    if layout.denoiser != "unet":
        return found, layout.family
    family = None if layout.family == "sd1" else layout.family
    for check in (_width_family, _prediction) if layout.family == "sd1" else (_prediction,):
        try:
            family = check(folder) or family
        except DuoError as error:
            found.append(error)
    return found, family


def _file_faults(path: Path) -> tuple[list[DuoError], str | None]:
    """Of a single checkpoint file."""
    if not path.exists():
        return [DuoError(f"there is no checkpoint {path}", hint="check the path")], None
    if path.suffix in _PICKLES:
        hint = "convert it to .safetensors where you trust it"
        return [DuoError(f"{path} is a pickle that could run code", hint=hint)], None
    try:
        return [], checkpoint_family(path)
    except DuoError as error:
        return [error], None


def absent_parts(layout: Layout, index: dict[str, Any]) -> list[str]:
    """The optional parts that a model_index.json leaves out: no entry, or [null, null]."""
    return [part for part in layout.optional if not (entry := index.get(part)) or not entry[0]]


def _missing(folder: Path, weighted: list[str], tokenizers: list[str]) -> list[DuoError]:
    # A tokenizer is in one file or in two, or (T5's) a sentencepiece model.
    needed = {
        **dict.fromkeys(weighted, ("config.json",)),
        "scheduler": ("scheduler_config.json",),
        **dict.fromkeys(tokenizers, ("tokenizer.json", "vocab.json", "spiece.model")),
    }
    return [
        DuoError(f"{folder} is not complete", got=f"no {part}/{' or '.join(names)}", hint=_AGAIN)
        for part, names in needed.items()
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


def _width_family(folder: Path) -> str | None:
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
    for part in sorted({part for layout in LAYOUTS.values() for part in layout.weighted}):
        names = [file.name for file in (folder / part).glob("*.safetensors")]
        if names and all(".fp16." in name or ".fp16-" in name for name in names):
            return "fp16"
    return None


def weight_files(part: Path, variant: str | None) -> list[Path]:
    """The files of a part's weights that are loaded: of a variant, or the plain ones, whole or in shards."""
    every = sorted(part.glob("*.safetensors"))
    plain = re.compile(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors")
    chosen = [file for file in every if (".fp16" in file.name if variant else plain.fullmatch(file.name))]
    return chosen or every


def layout_of(source: str, index: Any) -> Layout:
    """The layout that a model_index.json names; a pipeline class that is not supported fails."""
    name = index.get("_class_name") if isinstance(index, dict) else None
    if name not in LAYOUTS:
        raise DuoError(f"{source} is of an unsupported pipeline class", got=str(name), hint=" or ".join(SUPPORTED))
    return LAYOUTS[name]
