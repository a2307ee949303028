"""Which family a model is of, found from its config files alone: no weights are read, no torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ..errors import DuoError
from ..storage import read_json

SUPPORTED: Final = ("StableDiffusionPipeline",)


def family_of(source: str) -> str:
    """The settings family of a source, without loading weights: mini, sd1 or sd2. Unsupported ones fail."""
    if source == "mini":
        return "mini"
    folder = Path(source)
    if not folder.exists():
        if source.count("/") == 1 and not source.startswith((".", "/", "~")) and not folder.parent.exists():
            return "sd2" if "stable-diffusion-2" in source else "sd1"  # a hub id: by its name, nothing is fetched
        raise DuoError(f"there is no model folder {source}", hint="mini, a diffusers folder, or a hub id (owner/name)")
    _check_folder(folder)
    config = read_json(folder / "unet" / "config.json")
    width = config.get("cross_attention_dim") if isinstance(config, dict) else None
    if not isinstance(width, int):
        got = f"cross_attention_dim {width!r} in unet/config.json"
        raise DuoError(f"{folder} is no Stable Diffusion 1.x or 2.x model", got=got, hint=" or ".join(SUPPORTED))
    # SD 1.x reads CLIP ViT-L (768), SD 2.x OpenCLIP ViT-H (1024); a smaller one is the mini model's kind.
    return {768: "sd1", 1024: "sd2"}.get(width, "mini")


def _check_folder(folder: Path) -> None:
    index = folder / "model_index.json"
    if not index.exists():
        hint = "point at the folder that holds model_index.json (a model in diffusers format)"
        raise DuoError(f"{folder} is not a diffusers model", got="no model_index.json in it", hint=hint)
    check_class(str(folder), read_json(index))
    for part in ("unet", "vae", "text_encoder"):
        here = folder / part
        if not (here / "config.json").exists():
            raise DuoError(f"{folder} is not complete", got=f"no {part}/config.json", hint="download it again")
        if not any(here.glob("*.safetensors")):
            pickled = [p.name for p in here.iterdir() if p.suffix in (".bin", ".ckpt", ".pt", ".pth")]
            got = f"{part}/{pickled[0]}, a pickle that could run code" if pickled else f"no weights in {part}/"
            hint = "load it with diffusers where you trust it, and save_pretrained(..., safe_serialization=True)"
            raise DuoError(f"{folder} has no safetensors weights", got=got, hint=hint if pickled else None)


def check_class(source: str, index: Any) -> None:
    """Fail for a model_index.json whose pipeline class is not supported."""
    name = index.get("_class_name") if isinstance(index, dict) else None
    if name not in SUPPORTED:
        raise DuoError(f"{source} is of an unsupported pipeline class", got=str(name), hint=" or ".join(SUPPORTED))
