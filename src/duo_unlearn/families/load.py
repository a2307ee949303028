"""Loading a model by name: `mini`, a local diffusers folder, or a hub id. Safetensors only, no remote code."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from typing import Any, Final

import torch

from ..errors import DuoError
from ..progress import no_loading_bars
from ..records import Quantize
from ..runs.machine import local_index, world_size
from ..storage.files import read_json
from .identify import absent_parts, family_of, layout_of, variant_of, weight_files
from .interface import Model
from .model import DiffusersModel
from .registry import FAMILIES

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


def load_model(
    source: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    resolution: int | None = None,
    checkpoint_config: str | None = None,
    quantize: Quantize = "no",
) -> Model:
    """A model on a device.

    dtype: of its frozen weights; an adapter is float32 whatever this is. resolution: None for the model's own.
    checkpoint_config: see `load_checkpoint`, for a source that is a single file. quantize: of the denoiser.
    """
    import diffusers

    family = family_of(source)
    if quantize != "no":
        check_quantize(family, source)
    if Path(source).suffix == ".safetensors":
        return load_checkpoint(Path(source), checkpoint_config, device, dtype, resolution)
    folder: str | Path = source
    if source == "mini":
        from ..mini.model.bundle import weights_folder

        folder = weights_folder()
    local = Path(folder).exists()
    index = read_json(Path(folder) / "model_index.json") if local else _hub_index(source)
    layout = layout_of(source, index)
    if not local and layout.family != ("sd1" if family in ("mini", "sd1", "sd2") else family):
        got = f"{layout.family}; by its name it was taken for {family}, and the settings chosen for that"
        raise DuoError(f"{source} is of another family", got=got, hint="download it, and name its folder")
    kind = FAMILIES[family]
    left_out: dict[str, Any] = dict.fromkeys(absent_parts(layout, index))
    if layout.family == "sd1":
        left_out |= {"safety_checker": None, "requires_safety_checker": False}
    if quantize != "no":
        left_out["quantization_config"] = _int8(kind.denoiser)
    try:
        with no_loading_bars() if local else contextlib.nullcontext():
            pipe = getattr(diffusers, kind.pipeline).from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                variant=variant_of(Path(folder)) if local else None,
                local_files_only=local,
                **left_out,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DuoError(
            f"cannot load the model {source}", got=str(error)[:300], hint="check the folder's files"
        ) from error
    pipe.to(device)
    # A hub model lies in the cache, under the name that its configuration carries.
    root = (
        Path(folder) if local else Path(getattr(pipe, kind.denoiser).config.get("_name_or_path") or "/nowhere").parent
    )
    files = weight_files(root / kind.denoiser, variant_of(root))
    return DiffusersModel(pipe, kind, source, resolution, files, quantize)


def check_quantize(family: str, source: str) -> None:
    """Fail where a quantised base cannot be had, without loading anything."""
    if family not in ("sd3", "flux") or Path(source).suffix == ".safetensors":
        hint = "--set quantize=no; with little memory: --set train.gradient_checkpointing=true"
        raise DuoError(
            "a quantised base is for SD3 and FLUX in diffusers' format", got=f"{source} ({family})", hint=hint
        )
    if importlib.util.find_spec("torchao") is None:
        raise DuoError("quantize needs a package that is not installed", hint="pip install duo_unlearn[quantize]")


def _int8(denoiser: str) -> Any:
    from diffusers import TorchAoConfig
    from diffusers.quantizers import PipelineQuantizationConfig
    from torchao.quantization import Int8WeightOnlyConfig

    return PipelineQuantizationConfig(quant_mapping={denoiser: TorchAoConfig(Int8WeightOnlyConfig())})


def load_checkpoint(
    path: Path,
    config: str | None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    resolution: int | None = None,
) -> Model:
    """A model from one .safetensors file.

    config: a model whose configuration and tokenizers it has: mini, a diffusers folder, or a hub id; None: the one that
    diffusers knows for such a file, from the hub.
    """
    import diffusers

    kind = FAMILIES[family_of(str(path))]
    folder = config
    if config == "mini":
        from ..mini.model.bundle import weights_folder

        folder = str(weights_folder())
    local = folder is not None and Path(folder).exists()
    plain = {"safety_checker": None, "requires_safety_checker": False} if len(kind.text) == 1 else {}
    try:
        with no_loading_bars() if local else contextlib.nullcontext():
            pipe = getattr(diffusers, kind.pipeline).from_single_file(
                str(path), config=folder, local_files_only=local, dtype=dtype, **plain
            )
    except Exception as error:  # the hub's client raises many types beside those of a wrong configuration
        got = f"{type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''}"
        hint = "--set checkpoint_config=FOLDER of a diffusers model of its kind (the weights there are not read)"
        raise DuoError(f"cannot load the checkpoint {path}", got=got, hint=hint) from error
    pipe.to(device)
    return DiffusersModel(pipe, kind, str(path), resolution, [path])


def _hub_index(source: str) -> dict[str, Any]:
    """model_index.json of a model on the hub."""
    from diffusers import DiffusionPipeline

    try:
        return dict(DiffusionPipeline.load_config(source))
    except Exception as error:  # the hub's client raises many types; each means the same to the user
        hint = "check the id and the network, or pass a local diffusers folder"
        raise DuoError(f"cannot fetch the model {source} from the hub", got=type(error).__name__, hint=hint) from error
