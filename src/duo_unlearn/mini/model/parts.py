"""The mini model's parts: their sizes, as real diffusers and transformers classes with fresh weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from ..world.captions import vocabulary_text

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
    from transformers import CLIPModel, CLIPTokenizer

CONTEXT: Final = 40
"""Tokens of a prompt, start and end included."""
WIDTH: Final = 128
"""Width of the text encoder's output, which the denoiser's cross-attention reads."""


def build_tokenizer(folder: Path, *, captions: int, vocabulary: int, seed: int) -> CLIPTokenizer:
    """Train a byte-pair encoding on captions, and load it as CLIPTokenizer from `folder`.

    The alphabet is printable ASCII, so that an unseen English word still splits into letters.
    """
    import json

    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    end, start = "<|endoftext|>", "<|startoftext|>"
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=end))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+|[0-9]|[^\sa-z0-9]+"), behavior="removed", invert=True)
    alphabet = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(alphabet) - 2,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(vocabulary_text(captions, seed), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    joined = [merge.replace(" ", "") for merge in merges]
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    pieces += [token for token in dict.fromkeys(joined) if token not in set(pieces)]
    vocab = {token: index for index, token in enumerate([*pieces, start, end])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_bytes(json.dumps(vocab).encode())
    (folder / "merges.txt").write_bytes(("#version: 0.2\n" + "\n".join(merges) + "\n").encode())
    built = CLIPTokenizer.from_pretrained(folder, model_max_length=CONTEXT)
    built.save_pretrained(folder)
    return built


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Text and image towers of 4 layers, 128 wide; patches of 8 pixels."""
    from transformers import CLIPConfig, CLIPModel

    shared = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={
            **shared,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": CONTEXT,
            "projection_dim": 64,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**shared, "image_size": 64, "patch_size": 8, "projection_dim": 64},
        projection_dim=64,
    )
    return CLIPModel(config)


def build_vae() -> AutoencoderKL:
    """Factor 4: a picture of 3×64×64 becomes a latent of 4×16×16."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
    )


def build_unet() -> UNet2DConditionModel:
    """7.1 M parameters; attention (self and cross) at 8×8 and 4×4, none at 16×16."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(48, 96, 160),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """Stable Diffusion's noise schedule (scaled linear, ε-prediction), sampled by DPM-Solver++."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        steps_offset=1,
        timestep_spacing="linspace",
    )


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids padded to CONTEXT, (text, CONTEXT)."""
    encoded = tokenizer(texts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt")
    ids: torch.Tensor = encoded.input_ids
    return ids
