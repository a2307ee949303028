"""Z-Image and Z-Image-Turbo: one stream of text and image, rectified flow read backwards, Qwen3's tokens.

The network reads 1 − σ where others read σ, and gives the velocity towards the picture, x − ε. Its pipeline turns the
sign, so the noise process and the target are those of every flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from .family import Family, Size
from .sd3 import flow_noise

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .interface import Conditioning
    from .noise import NoiseProcess

# The main blocks see both image and text; two refining blocks each see one of them. With the text's alone left out,
# the default is still every layer through which the picture is made.
_IMAGE: Final = r"(layers|noise_refiner)\.\d+\.attention\.to_(q|k|v|out\.0)"
_TEXT: Final = r"context_refiner\.\d+\.attention\.to_(q|k|v|out\.0)"
TOKENS: Final = 512
"""How many tokens of a prompt, chat template included, Qwen3 reads: the pipeline's own default."""


def _noise(pipe: Any, resolution: int) -> NoiseProcess:
    return flow_noise(pipe.scheduler, resolution // pipe.vae_scale_factor // 2)


def _encode(pipe: Any, prompts: Sequence[str]) -> Conditioning:
    """Qwen3's next to last hidden state of the prompt in its chat template, which asks for thought."""
    from .interface import Conditioning
    from .llm import padded

    rows, _ = pipe.encode_prompt(
        list(prompts), device=pipe.device, do_classifier_free_guidance=False, max_sequence_length=TOKENS
    )
    return Conditioning(padded(rows, TOKENS))


def _output(output: Any) -> Tensor:
    """The pictures of a list, (c, 1, h, w) each, as velocities from the picture to the noise."""
    import torch

    return -torch.stack(list(output[0])).squeeze(2)


def _predict(_pipe: Any, network: nn.Module, noisy: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
    from .llm import rows_of

    pictures = list(noisy.unsqueeze(2).unbind(dim=0))
    return _output(network(pictures, (1000 - time) / 1000, rows_of(conditioning.text), return_dict=False))


def _call(conditioning: Conditioning, negative: Conditioning, guidance: float) -> dict[str, Any]:
    from .llm import rows_of

    return {
        "prompt_embeds": rows_of(conditioning.text),
        "negative_prompt_embeds": rows_of(negative.text),
        # This pipeline adds s (ε_c − ε_n) to ε_c, and others to ε_n: its scale is one less than theirs.
        "guidance_scale": max(guidance - 1, 0.0),
    }


Z_IMAGE: Final = Family(
    name="z-image",
    title="Z-Image and Z-Image-Turbo",
    needs="1024 px; Turbo is distilled: guidance 1 and 8 steps, and train on Z-Image",
    pipeline="ZImagePipeline",
    image_to_image="ZImageImg2ImgPipeline",
    denoiser="transformer",
    denoiser_class="ZImageTransformer2DModel",
    text=("text_encoder",),
    tokenizers=("tokenizer",),
    targets={"self-attention": _IMAGE, "all-attention": f"{_IMAGE}|{_TEXT}"},
    text_tokens=TOKENS,
    hub_words=("z-image",),
    checkpoint_names=("cap_pad_token", "model.diffusion_model.cap_pad_token"),
    reader="Qwen3",
    padded=True,
    guidance=6.0,
    size=Size(6154.9, 4106, (31.46, 33.42), 1024, (42.79, 1.173), (0.56, 1.611, 1.342), 62.5),
    noise=_noise,
    encode=_encode,
    predict=_predict,
    call=_call,
    architecture=lambda _pipe: "Z-Image",
    output=_output,
    positive_first=True,
)
