"""What every family of the registry promises. A new one is under test by its line there."""

from __future__ import annotations

import inspect
import itertools
import re
import subprocess
import sys
from typing import get_args

import diffusers
import pytest
import torch
from benchmarks.published import PUBLISHED

from duo_unlearn.families.family import Family
from duo_unlearn.families.interface import Conditioning
from duo_unlearn.families.registry import FAMILIES, every_family
from duo_unlearn.features.registry import CLIPS, EXTRACTORS
from duo_unlearn.records import Targets


@pytest.fixture(params=FAMILIES.names())
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES.get(request.param)


SCALES = ("guidance_scale", "true_cfg_scale")


def parameters(pipeline: str) -> set[str]:
    return set(inspect.signature(getattr(diffusers, pipeline).__init__).parameters)


def test_it_is_registered_under_its_name(family: Family) -> None:
    assert FAMILIES.get(family.name) is family
    assert family.title
    assert family.needs


def test_its_classes_are_those_of_diffusers(family: Family) -> None:
    components = {family.denoiser, "vae", "scheduler", *family.text, *family.tokenizers}
    assert components <= parameters(family.pipeline)
    assert family.image_to_image is None or components <= parameters(family.image_to_image)
    assert hasattr(diffusers, family.denoiser_class)
    assert set(family.optional) <= {*family.text, *family.tokenizers}
    assert set(family.load_options) <= parameters(family.pipeline)
    assert family.parts[:2] == (family.denoiser, "vae")


def test_its_guidance_is_the_default_of_its_pipeline(family: Family) -> None:
    text = Conditioning(torch.ones(1, 2, 4), torch.ones(1, 4))
    ((name, scale),) = [(k, v) for k, v in family.call(text, text, family.guidance).items() if k in SCALES]
    assert scale == inspect.signature(getattr(diffusers, family.pipeline).__call__).parameters[name].default


def test_its_facts_are_whole(family: Family) -> None:
    assert set(family.targets) == set(get_args(Targets))
    assert all(re.compile(pattern) for pattern in family.targets.values())
    assert set(family.token_encoders) <= set(itertools.product(family.tokenizers, family.text))
    assert family.reads_clip_alone == bool(family.token_encoders)
    assert family.features in EXTRACTORS.names()
    assert family.clip in CLIPS.names()
    assert family.relearning_rate > 0
    assert family.clip_success is None or 0 < family.clip_success < 1
    assert bool(family.checkpoint_names) == hasattr(getattr(diffusers, family.pipeline), "from_single_file")
    assert family.reader
    assert all(word == word.lower() for word in family.hub_words)
    for field in ("noise", "encode", "predict", "call"):
        assert callable(getattr(family, field))


def test_its_size_is_counted_on_its_published_denoiser(family: Family) -> None:
    assert (family.size is None) == (family.name not in PUBLISHED)
    if family.size is not None:
        plain, checkpointed = family.size.row
        assert 0 < checkpointed < plain
        assert (
            min(family.size.denoiser, family.size.others, *family.size.adapter, *family.size.held, family.size.flops)
            > 0
        )
        assert all(side % 8 == 0 for side in (family.size.resolution, *family.hub_resolutions.values()))


def test_no_two_families_are_recognised_by_the_same_thing() -> None:
    words = [word for family in every_family() for word in family.hub_words]
    assert len(set(words)) == len(words)
    assert "" in words  # a hub id that says nothing is of some family
    for one, other in itertools.combinations(every_family(), 2):
        if one.pipeline == other.pipeline or set(one.checkpoint_names) & set(other.checkpoint_names):
            assert one.text_width != other.text_width


def test_the_facts_are_read_without_torch() -> None:
    code = (
        "import sys; from duo_unlearn.families.identify import model_faults\n"
        "from duo_unlearn.families.registry import every_family; import duo_unlearn.settings.needs\n"
        "every_family(); model_faults('mini'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
