"""The mini model that ships in the package: where it lies, and the parts that a pipeline does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from ...errors import DuoError
from ...progress import no_loading_bars
from ...storage.files import read_tensors
from .judge_net import JUDGES

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

WEIGHTS: Final = Path(__file__).parents[1] / "weights" / "model"


def weights_folder() -> Path:
    """The shipped model's folder, in diffusers' format; DuoError where it is absent."""
    if not (WEIGHTS / "model_index.json").exists():
        hint = "install the package again, or train it with `duo mini fit`"
        raise DuoError("the mini model is not in this installation", got=f"no model in {WEIGHTS}", hint=hint)
    return WEIGHTS


def load_judge(folder: Path, device: torch.device, name: str = "judge") -> nn.Module:
    """A judge of a model folder, float32, for evaluation. name: of JUDGES. Weights that are not its are a DuoError."""
    path = folder / name / "model.safetensors"
    judge: nn.Module = JUDGES[name]()
    try:
        judge.load_state_dict(read_tensors(path)[0])
    except RuntimeError as error:
        raise DuoError(f"{path} holds no weights of the judge", got=str(error).splitlines()[-1].strip()) from error
    judge.requires_grad_(False).eval()
    return judge.to(device)


def load_clip(folder: Path, device: torch.device) -> tuple[CLIPModel, CLIPTokenizer]:
    """The whole CLIP (both towers) of a model folder, float32, for evaluation, and its tokenizer."""
    from transformers import CLIPModel, CLIPTokenizer

    try:
        with no_loading_bars():
            clip: Any = CLIPModel.from_pretrained(
                folder / "clip", dtype=torch.float32, use_safetensors=True, local_files_only=True
            )
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        raise DuoError(f"cannot load the CLIP of {folder}", got=str(error)[:200]) from error
    return clip.requires_grad_(False).eval().to(device), tokenizer
