"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a UNet that predicts ε or v."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, get_args

from ..errors import DuoError
from ..records import Prediction, Targets
from .family import Family, Size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .interface import Conditioning
    from .noise import NoiseProcess

UNET_TARGETS: Final[dict[Targets, str]] = {
    # With the empty prompt in training, a change in self-attention acts for every prompt (authors' scripts).
    "self-attention": r".*\.attn1\.to_(q|k|v|out\.0)",
    "all-attention": r".*\.attn[12]\.to_(q|k|v|out\.0)",
}


def unet_noise(pipe: Any, _resolution: int) -> NoiseProcess:
    """The scheduler's ᾱ and prediction type; one that has none, or predicts something else, is a DuoError."""
    from .noise import Diffusion

    name, known = type(pipe.scheduler).__name__, get_args(Prediction)
    if not hasattr(pipe.scheduler, "alphas_cumprod") or pipe.scheduler.config.prediction_type not in known:
        got = f"{name}, prediction_type {pipe.scheduler.config.get('prediction_type')!r}"
        hint = f"a scheduler of {' or '.join(known)}, e.g. DDIMScheduler"
        raise DuoError("DUO has no target for the model's scheduler", got=got, hint=hint)
    return Diffusion(pipe.scheduler.alphas_cumprod, pipe.scheduler.config.prediction_type)


def _encode(pipe: Any, prompts: Sequence[str]) -> Conditioning:
    """The text encoder's last hidden state; longer prompts are cut."""
    from .interface import Conditioning

    return Conditioning(pipe.encode_prompt(list(prompts), pipe.device, 1, False)[0])


def _predict(_pipe: Any, network: nn.Module, noisy: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
    output: Tensor = network(noisy, time, encoder_hidden_states=conditioning.text, return_dict=False)[0]
    return output


def _call(conditioning: Conditioning, negative: Conditioning, guidance: float) -> dict[str, Any]:
    return {
        "prompt_embeds": conditioning.text,
        "negative_prompt_embeds": negative.text,
        "guidance_scale": guidance,
    }


def _architecture(pipe: Any) -> str:
    """The 768-pixel model predicts v, the 512-pixel one ε."""
    predicts_v = pipe.scheduler.config.prediction_type == "v_prediction"
    return "stable-diffusion-v2-768-v" if predicts_v else "stable-diffusion-v2-512"


SD1: Final = Family(
    name="sd1",
    title="Stable Diffusion 1.x",
    needs="ε-prediction, 512 px",
    pipeline="StableDiffusionPipeline",
    image_to_image="StableDiffusionImg2ImgPipeline",
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    text=("text_encoder",),
    tokenizers=("tokenizer",),
    load_options={"safety_checker": None, "requires_safety_checker": False},
    targets=UNET_TARGETS,
    hub_words=("",),  # a hub id that says nothing is taken for one of these
    checkpoint_names=("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",),
    text_width=768,  # CLIP ViT-L
    token_encoders=(("tokenizer", "text_encoder"),),
    clip_reads_prompts=True,
    size=Size(859.5, 207, (3.19, 6.38), 512, (0.95, 0.149), (0.068, 0.403, 0.336), 0.80),
    noise=unet_noise,
    encode=_encode,
    predict=_predict,
    call=_call,
    architecture=lambda _pipe: "stable-diffusion-v1",
)
SD2: Final = replace(
    SD1,
    name="sd2",
    title="Stable Diffusion 2.x",
    needs="v-prediction at 768 px, ε-prediction at 512 px (base)",
    hub_words=("stable-diffusion-2",),
    checkpoint_names=("cond_stage_model.model.ln_final.weight",),
    text_width=1024,  # OpenCLIP ViT-H
    clip_reads_prompts=False,
    size=Size(865.9, 424, (3.19, 6.64), 768, (2.03, 0.238), (0.153, 0.906, 0.755), 2.15),
    hub_resolutions={"base": 512},
    architecture=_architecture,
)
