"""What `duo check` says a run needs: the table against a count on the published configurations, and how it scales."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from benchmarks.published import ENCODERS, published_denoiser, published_encoder, published_vae
from benchmarks.published_memory import peak_bytes, saved_bytes, with_adapter
from torch import nn

from duo_unlearn.concepts.store import load_concept
from duo_unlearn.families.quantize import KINDS
from duo_unlearn.families.registry import FAMILIES, every_family
from duo_unlearn.records import Quantize, Targets
from duo_unlearn.settings.needs import Needs, as_json, as_text, estimate
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.settings.tree import Settings

from ..families import small_models as small

HUB = {
    "sd1": "a/stable-diffusion-v1-4",
    "sd2": "a/stable-diffusion-2",
    "sdxl": "a/stable-diffusion-xl",
    "sd3": "a/stable-diffusion-3",
    "flux": "a/flux",
    "flux2": "a/flux.2-dev",
    "flux2-klein": "a/flux.2-klein-4b",
    "qwen-image": "a/qwen-image",
    "z-image": "a/z-image",
}

SIZES = {family.name: family.size for family in every_family() if family.size is not None}


def needs(tmp_path: Path, model: str, **train: object) -> Needs:
    given = {"model": model, "concept": "nudity", "output": str(tmp_path / "run"), "train": train}
    found = estimate(resolve_settings(given), load_concept("nudity"))
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(SIZES))
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_table_is_what_a_pass_keeps(family: str, *, checkpointing: bool) -> None:
    assert saved_bytes(family, checkpointing=checkpointing) / 1e9 == pytest.approx(
        SIZES[family].row[checkpointing], rel=0.02
    )


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@functools.cache
def denoiser_counts(family: str) -> tuple[int, int]:
    """How many parameters the published denoiser has, and how many of them are weights of linear layers."""
    denoiser = published_denoiser(family)
    linear = sum(layer.weight.numel() for layer in denoiser.modules() if isinstance(layer, nn.Linear))
    return parameters(denoiser), linear


@pytest.mark.parametrize("family", sorted(SIZES))
def test_the_weights_are_those_of_the_published_configurations(family: str, tmp_path: Path) -> None:
    """Counted on the meta device, every part of it; within 0.5 %."""
    denoiser, _ = denoiser_counts(family)
    others = parameters(published_vae(family)) + sum(parameters(published_encoder(one)) for one in ENCODERS[family])
    for precision, width in (("no", 4), ("bf16", 2)):
        found = needs(tmp_path, HUB[family], mixed_precision=precision, gradient_checkpointing=True)
        assert found.weights == pytest.approx(denoiser * width / 1e9, rel=5e-3)
        batch = found.sampling - found.weights  # the other parts, and what a batch takes
        assert batch > others * width / 1e9 * (1 - 5e-3)
    assert SIZES[family].others == pytest.approx(others / 1e6, rel=5e-3)


@pytest.mark.parametrize("family", sorted(name for name in SIZES if FAMILIES.get(name).quantizable))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_weights_in_few_bits(family: str, kind: Quantize, tmp_path: Path) -> None:
    """Linear layers' weights are kept so, and the rest as it is; within 1 %."""
    whole, linear = denoiser_counts(family)
    given = {"model": HUB[family], "concept": "nudity", "output": str(tmp_path / "run"), "quantize": kind}
    found = estimate(resolve_settings(given | {"train": {"mixed_precision": "bf16"}}), load_concept("nudity"))
    assert found is not None
    assert found.weights == pytest.approx((linear * KINDS[kind].weight + 2 * (whole - linear)) / 1e9, rel=1e-2)
    plain = needs(tmp_path, HUB[family], mixed_precision="bf16")
    assert plain.sampling - found.sampling == pytest.approx(plain.weights - found.weights)


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        pytest.param(family, targets, marks=() if (family, targets) == ("sd1", "self-attention") else pytest.mark.slow)
        for family in sorted(SIZES)
        for targets in ("self-attention", "all-attention")
    ],
)
def test_the_adapter_is_as_large_as_pefts(family: str, targets: Targets, tmp_path: Path) -> None:
    """Counted on the meta device; within 0.5 %."""
    made = with_adapter(family, targets)
    count = sum(parameter.numel() for name, parameter in made.named_parameters() if "lora_" in name)
    found = needs(tmp_path, HUB[family], adapter_targets=targets, rank=32)
    assert found.adapter == pytest.approx(16 * count / 1e9, rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(SIZES))
def test_the_table_is_what_is_held_without_gradients(family: str) -> None:
    assert [count / 1e9 for count in peak_bytes(family)] == pytest.approx(SIZES[family].held, rel=0.02)


def test_large_pictures_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    given = {"model": HUB["flux"], "concept": "nudity", "output": str(tmp_path / "run")}
    one, eight = (
        estimate(resolve_settings(given | {"evaluate": {"batch": n}, "pairs": {"batch": n}}), load_concept("nudity"))
        for n in (1, 8)
    )
    assert one is not None
    assert eight is not None
    row, decoding, _ = SIZES["flux"].held
    assert eight.sampling - one.sampling == pytest.approx(2 * (8 * row - decoding))


def test_the_time_counts_steps_rows_and_recomputation(tmp_path: Path) -> None:
    plain = needs(tmp_path, HUB["sd1"], max_train_steps=1000, gradient_checkpointing=False)
    # 1000 steps of 12 rows, three passes of 0.80 TFLOP each, at 100 TFLOP/s.
    assert plain.training_hours == pytest.approx(1000 * 12 * 3 * 0.80 / 100 / 3600)
    again = needs(tmp_path, HUB["sd1"], max_train_steps=1000, gradient_checkpointing=True)
    assert again.training_hours == pytest.approx(plain.training_hours * 4 / 3)
    assert needs(tmp_path, HUB["sd1"], max_train_steps=500).training_hours == pytest.approx(plain.training_hours / 2)


@pytest.mark.parametrize(("family", "most"), [("sd1", 6.0), ("sdxl", 14.0)])
def test_the_goals_are_in_reach_with_checkpointing(tmp_path: Path, family: str, most: float) -> None:
    found = needs(tmp_path, HUB[family], mixed_precision="bf16", gradient_checkpointing=True)
    assert found.training < most
    assert found.training == found.checkpointed == found.weights + found.adapter + found.activations


def test_it_grows_with_batch_and_precision(tmp_path: Path) -> None:
    half = needs(tmp_path, HUB["sd1"], mixed_precision="bf16")
    assert needs(tmp_path, HUB["sd1"]).weights == pytest.approx(2 * half.weights)
    one = needs(tmp_path, HUB["sd1"], mixed_precision="bf16", train_batch_size=1)
    assert half.activations == pytest.approx(4 * one.activations)
    no_prior = needs(tmp_path, HUB["sd1"], mixed_precision="bf16", prior_weight=0)
    assert no_prior.activations == pytest.approx(half.activations * 2 / 3)
    assert "gradient_checkpointing=true" in as_text(half)


def test_a_local_models_own_size_counts(tmp_path: Path) -> None:
    small.sdxl(tmp_path / "model")
    found = needs(tmp_path, str(tmp_path / "model"))
    assert found.weights < 0.01
    kept = 8 * SIZES["sdxl"].row[False] * 2 * (64 / 1024) ** 2  # by 8 rows of the inversion in full precision
    assert kept < found.sampling < kept + 0.02


def test_an_evaluation_has_room_for_the_inverted_token_where_there_is_one(tmp_path: Path) -> None:
    sdxl = {flag: needs(tmp_path, HUB["sdxl"], mixed_precision="bf16", gradient_checkpointing=flag) for flag in (0, 1)}
    rows = SIZES["sdxl"].row
    assert sdxl[0].sampling - sdxl[1].sampling == pytest.approx(8 * (rows[0] - rows[1]))
    assert sdxl[1].sampling > sdxl[1].weights + 8 * rows[1]
    sd3 = [needs(tmp_path, HUB["sd3"], mixed_precision="bf16", gradient_checkpointing=flag) for flag in (False, True)]
    assert sd3[0].sampling == sd3[1].sampling == sd3[0].weights + 2 * 5.664 + 16 * SIZES["sd3"].held[0]


def test_an_inverted_token_is_asked_of_the_prompts_that_are_there(tmp_path: Path) -> None:
    concept = load_concept("nudity")

    def inverted(prompts: int, *, plain: bool = True) -> float:
        told = concept if plain else concept.model_copy(update={"plain": None})
        given = {"model": HUB["sd1"], "concept": "nudity", "output": str(tmp_path / "run")}
        disks = []
        for few in (5, 0):
            counts = {"prompts": prompts, "inversion_prompts": few}
            found = estimate(resolve_settings(given | {"evaluate": counts}), told)
            assert found is not None
            disks.append(found.disk)
        return (disks[0] - disks[1]) * 1e9 / (2 * 512 * 512 * 1.6)

    assert inverted(50) == pytest.approx(5 + 5)
    assert inverted(2) == pytest.approx(2 + 5)
    assert inverted(2, plain=False) == pytest.approx(2)


@pytest.mark.parametrize("given", [{"recipe": "robust"}, {"eraser": "uce"}])
def test_of_another_eraser_no_figure_of_duos_training_is_told(tmp_path: Path, given: dict[str, str]) -> None:
    settings = resolve_settings({"model": HUB["sd1"], "concept": "nudity", "output": str(tmp_path / "run"), **given})
    found, duos = estimate(settings, load_concept("nudity")), needs(tmp_path, HUB["sd1"])
    assert found is not None
    assert found.sampling == duos.sampling
    assert found.disk < duos.disk
    said = as_text(found, settings.model, settings.eraser)
    timed = settings.eraser == "robust-duo"
    assert f"not counted: memory {'' if timed else 'and time '}that {settings.eraser} takes" in said
    assert ("TFLOP/s: training" in said) == timed
    assert "in training" not in said
    told = as_json(found, settings.eraser)
    assert told is not None
    lacking = ["adapter", "activations", "training", "checkpointed", *([] if timed else ["training_hours"])]
    assert [name for name, value in told.items() if value is None] == lacking
    assert as_json(duos) == duos._asdict()


def test_the_time_of_robust_duo_has_its_searches_and_what_it_holds(tmp_path: Path) -> None:
    def hours(wrap: str | None = None, **options: object) -> tuple[float, Settings]:
        own = {
            "max_train_steps": 100,
            "captions": {"unsafe": 0.0, "empty": 0.0, "random": 0.0, "search": 1.0},
            **options,
        }
        given = {
            "model": HUB["sd1"], "concept": "nudity", "output": str(tmp_path / "run"), "eraser": "robust-duo",
            "erasers": {"robust-duo": own}, "wrap": wrap,
        }  # fmt: skip
        settings = resolve_settings(given)
        found = estimate(settings, load_concept("nudity"))
        assert found is not None
        return found.training_hours * 100 * 3600 / 0.80 / 100, settings  # passes of a row a step

    # Four pairs of three rows, by both models and back; two steps of four searches and back, once by the original; four
    # pictures that are held, by both models and back.
    assert hours()[0] == pytest.approx(12 * 3 + 4 * 2 * 2 + 4 * (1 - 0.5**4) + 4 * 3)
    assert hours(hold_weight=0, prior_weight=0, search={"steps": 0})[0] == pytest.approx(8 * 3)
    assert hours(gradient_checkpointing=True)[0] == pytest.approx(hours()[0] + 12 + 8 + 4)
    assert hours(rounds=2)[0] == pytest.approx(2 * hours()[0])
    kept = hours(keep=3, neighbours=2, keep_steps=10)[0] - hours()[0]
    assert kept == pytest.approx(2 * 10 * 5 / 100)
    # Wrapped it is another training.
    _, settings = hours("meta-unlearning")
    assert "not counted: memory and time that meta-unlearning-robust-duo" in as_text(
        estimate(settings, load_concept("nudity")), settings.model, settings.edit
    )


def test_the_mini_model_needs_nothing_to_speak_of(tmp_path: Path) -> None:
    settings = resolve_settings({"output": str(tmp_path / "run")})
    assert estimate(settings, load_concept("sword")) is None
    assert "less than 2 GB" in as_text(None)


def test_all_parts_are_loaded_together_and_small_sd2_is_small(tmp_path: Path) -> None:
    flux = needs(tmp_path, "a/FLUX.1-dev", mixed_precision="bf16", gradient_checkpointing=True, train_batch_size=1)
    # The text encoders are there until their outputs are cached, beside one image in the VAE.
    assert flux.training == pytest.approx(2 * (11901.4 + 4969) / 1e3 + SIZES["flux"].held[2])
    base, full = (needs(tmp_path, f"a/stable-diffusion-2{end}") for end in ("-base", ""))
    assert base.activations == pytest.approx(full.activations * (512 / 768) ** 2)
