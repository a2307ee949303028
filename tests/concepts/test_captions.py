"""Captions that a user brings: COCO's form, its year, and one caption an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from duo_unlearn.concepts.captions import read_captions, read_coco
from duo_unlearn.errors import DuoError


def coco(folder: Path, images: int = 5, **more: Any) -> Path:
    """A file of COCO's form: two captions an image, that with the higher id first."""
    annotations = [
        {"image_id": image, "id": 10 * image + k, "caption": f"image {image},\n caption {k} "}
        for image in range(images)
        for k in (1, 0)
    ]
    path = folder / "captions.json"
    path.write_text(json.dumps({"info": {"year": 2014}, "annotations": annotations, **more}))
    return path


def test_one_caption_an_image_that_with_the_lowest_id(tmp_path: Path) -> None:
    found = read_coco(coco(tmp_path))
    assert found.year == 2014
    assert sorted(found.texts) == [f"image {image}, caption 0" for image in range(5)]


def test_the_order_is_drawn_and_the_same_each_time(tmp_path: Path) -> None:
    texts = [prompt.text for prompt in read_captions(coco(tmp_path, 50))]
    assert texts == [prompt.text for prompt in read_captions(coco(tmp_path, 50))]
    assert texts != sorted(texts)
    assert len(set(texts)) == 50


def test_other_files_are_read_as_prompts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a dog\na cat\n")
    assert [prompt.text for prompt in read_captions(tmp_path / "a.txt")] == ["a dog", "a cat"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "no JSON object"),
        ("{}", "no captions of COCO's form"),
        ('{"annotations": [{"image_id": 1, "id": 1}]}', "no captions of COCO's form"),
        ('{"annotations": [{"image_id": 1, "id": 1, "caption": 7}]}', "no captions of COCO's form"),
        ('{"annotations": [{"image_id": "x", "id": 1, "caption": "a"}]}', "no captions of COCO's form"),
        ('{"annotations": []}', "no caption"),
        ('{"annotations": [{"image_id": 1, "id": 1, "caption": " "}]}', "no caption"),
        ('{"annotations": [{"image_id": 1, "id": 1, "caption": "a \\ud83d"}]}', "no caption"),
    ],
)
def test_a_file_of_another_form(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "captions.json").write_text(content)
    with pytest.raises(DuoError, match=said) as caught:
        read_captions(tmp_path / "captions.json")
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(("info", "year"), [({"year": "2017"}, 2017), ({}, None), ([], None), ({"year": None}, None)])
def test_the_year(tmp_path: Path, info: Any, year: int | None) -> None:
    assert read_coco(coco(tmp_path, info=info)).year == year
