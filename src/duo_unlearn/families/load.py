"""Loading a model by name: `mini`, a local diffusers folder, or a hub id. Safetensors only, no remote code."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from ..errors import DuoError
from ..progress import no_loading_bars
from ..records import Quantize
from ..runs.machine import local_index, world_size
from ..storage.files import read_json
from ..storage.hub import files_here_alone, why_not_loaded
from .checkpoint import check_prediction
from .family import ONE_BY_ONE, Family
from .identify import families_of_index, family_of
from .interface import Model
from .model import DiffusersModel
from .parts import absent_parts, denoiser_files, fingerprint_of, variant_of
from .quantize import check_quantize, check_quantize_device, quantization_of
from .registry import FAMILIES

BF16_UNITS: Final = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""What torch calls the instructions that compute in bf16, of x86 and of ARM."""
DTYPES: Final = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """auto: CUDA, else MPS, else the CPU. Any other name is torch's."""
    if name == "auto":
        if torch.cuda.is_available():
            # Of several processes each takes a GPU of its own; alone, whichever is torch's current one.
            return torch.device("cuda", local_index()) if world_size() > 1 else torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        got = f"{name}: {str(error).splitlines()[0]}"
        raise DuoError("the device cannot be used", got=got, hint="auto or cpu") from error
    return device


def check_precision(name: str, device: torch.device) -> None:
    """Fail for a precision in which a device cannot train."""
    if name == "fp16" and device.type == "cpu":
        raise DuoError("fp16 training needs a GPU", got=f"device {device}", hint="mixed_precision no, or bf16")


def lacks_bf16(device: torch.device, capabilities: Mapping[str, Any] | None = None) -> str | None:
    """Why bf16 is no faster than float32 on a device, or None where it is, or where torch cannot tell.

    capabilities: of the CPU, by torch's names; None: of this one.
    """
    if capabilities is None:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if device.type != "cpu" or not capabilities or any(capabilities.get(name) for name in BF16_UNITS):
        return None
    return f"this CPU has no bf16 units ({', '.join(BF16_UNITS)})"


def load_model(
    source: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    resolution: int | None = None,
    checkpoint_config: str | None = None,
    quantize: Quantize = "no",
    *,
    channels_last: bool = False,
) -> Model:
    """A model on a device.

    dtype: the type of its frozen weights; an adapter is float32 whatever this is. resolution: pixels of an image's
    side, or None for the model's own. checkpoint_config: see `load_checkpoint`, for a source that is a single file.
    quantize: how the denoiser's weights are kept. channels_last: how those of convolutions lie in memory.
    """
    import diffusers

    family = FAMILIES.get(family_of(source))
    if quantize != "no":
        check_quantize(quantize, family.name, source)
        check_quantize_device(quantize, device)
    if Path(source).suffix == ".safetensors":
        return load_checkpoint(Path(source), checkpoint_config, device, dtype, resolution, channels_last=channels_last)
    folder = _folder_of(source)
    local, here = Path(folder).exists(), files_here_alone(folder)
    index = read_json(Path(folder) / "model_index.json") if local else _hub_index(source)
    _check_class(source, family, index)
    options = {**dict.fromkeys(absent_parts(family, index)), **family.load_options}
    if quantize != "no":
        options["quantization_config"] = quantization_of(quantize, family.denoiser, dtype)
    try:
        with no_loading_bars() if local else contextlib.nullcontext():
            pipe = getattr(diffusers, family.pipeline).from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                variant=variant_of(Path(folder)) if local else None,
                local_files_only=here,
                **options,
            )
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, ImportError, TypeError) as error:
        raise DuoError(
            f"cannot load the model {source}", got=str(error)[:300], hint="check the folder's files"
        ) from error
    pipe.to(device)
    files = _denoiser_files(pipe, family, folder)
    return _set_up(DiffusersModel(pipe, family, source, resolution, files, quantize), channels_last=channels_last)


def _folder_of(source: str) -> str:
    """The folder of a model, or the hub id that it stands for."""
    if source != "mini":
        return source
    from ..mini.model.bundle import weights_folder

    return str(weights_folder())


def _check_class(source: str, family: Family, index: dict[str, Any]) -> None:
    """Fail for a model on the hub that is of another family than its name says: the settings were chosen by that."""
    if family not in (found := families_of_index(source, index)):
        others = " or ".join(one.name for one in found)
        got = f"{others}; by its name it was taken for {family.name}, and the settings chosen for that"
        raise DuoError(f"{source} is of another family", got=got, hint="download it, and name its folder")


def _denoiser_files(pipe: Any, family: Family, folder: str) -> list[Path]:
    """The files that the denoiser's weights were read from. Those of a hub model lie in the hub's cache."""
    root = Path(folder)
    if not root.exists():
        root = Path(getattr(pipe, family.denoiser).config.get("_name_or_path") or "/nowhere").parent
    return denoiser_files(root, family)


def known_fingerprint(source: str) -> str | None:
    """The fingerprint that a model will have, from files that are here; None: the hub has them. Nothing is loaded."""
    family, path = FAMILIES.get(family_of(source)), Path(_folder_of(source))
    if path.suffix == ".safetensors":
        return fingerprint_of([path])
    return fingerprint_of(denoiser_files(path, family)) if path.exists() else None


def load_checkpoint(
    path: Path,
    config: str | None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    resolution: int | None = None,
    *,
    channels_last: bool = False,
) -> Model:
    """A model from one .safetensors file.

    config: a model whose configuration and tokenizers it has: mini, a diffusers folder, or a hub id; None: the one that
    diffusers knows for such a file, from the hub.
    """
    import diffusers

    family = FAMILIES.get(family_of(str(path)))
    folder = None if config is None else _folder_of(config)
    local = folder is not None and Path(folder).exists()
    try:
        with no_loading_bars() if local else contextlib.nullcontext():
            pipe = getattr(diffusers, family.pipeline).from_single_file(
                str(path), config=folder, local_files_only=files_here_alone(folder), dtype=dtype, **family.load_options
            )
    except Exception as error:  # the hub's client raises many types beside those of a wrong configuration
        got = f"{type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''}"
        hint = "--set checkpoint_config=FOLDER of a diffusers model of its kind (the weights there are not read)"
        raise DuoError(f"cannot load the checkpoint {path}", got=got, hint=hint) from error
    check_prediction(path, str(pipe.scheduler.config.get("prediction_type")))
    pipe.to(device)
    return _set_up(DiffusersModel(pipe, family, str(path), resolution, [path]), channels_last=channels_last)


def _set_up(model: DiffusersModel, *, channels_last: bool) -> DiffusersModel:
    """Large pictures go through the VAE one at a time: eight of a megapixel at once would take 13 GB."""
    if model.resolution > ONE_BY_ONE:
        model.pipe.vae.enable_slicing()
    if channels_last:
        lay_channels_last(model)
    return model


def lay_channels_last(model: DiffusersModel) -> None:
    """Put the channels of two-dimensional convolutions' weights last in memory; what comes of them lies so too.

    The sums are the same, in another order, so the model's variant tells it.
    """
    for weight in (*model.denoiser.parameters(), *model.pipe.vae.parameters()):
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    model.variant = f"channels last, {model.variant}"


def _hub_index(source: str) -> dict[str, Any]:
    """model_index.json of a model on the hub."""
    from diffusers import DiffusionPipeline

    try:
        with warnings.catch_warnings(action="ignore"):  # diffusers gives the hub's client an option that is gone
            return dict(DiffusionPipeline.load_config(source, local_files_only=files_here_alone(source)))
    except Exception as error:  # the hub's client raises many types; each means the same to the user
        hint = "check the id and the network, or pass a local diffusers folder"
        got = why_not_loaded(error, source)
        raise DuoError(f"cannot fetch the model {source} from the hub", got=got, hint=hint) from error
