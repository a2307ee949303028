"""YAML that users write: what is no YAML, too deep, too large or a trap is a DuoError, never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from duo_unlearn.errors import DuoError
from duo_unlearn.storage.forms import MOST_BYTES, faults, parse_yaml, read_yaml

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"b{i}: &b{i} {{<<: [{', '.join([f'*{before}'] * 8)}]}}\n"
    for i, before in enumerate(["a", *(f"b{i}" for i in range(8))])
)


def refused(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DuoError) as caught:
        read_yaml(path, "settings file", hint="restore it")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert str(path) in lines[0]
    assert all(len(line) < 500 for line in lines)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "a: [1",
        "a: " + "[" * 10_000,
        "a: " + "{b: " * 5_000,
        "[" * 400_000,  # libyaml composes this by recursion in C, and would end the process
        "- " * 400_000,
        "\n".join(" " * i + "a:" for i in range(1200)),
        "a: 2026-13-45",
        "a: " + "9" * 5000,
        "a: !!int x",
        "a: !!int ''",
        "a: !!timestamp x",
        "a: !!bool x",
        "a: !!python/object/apply:os.system [echo]",
        "a: b\0c",
        "? [1]\n: 2",
        "a: &a [*a]",
        "--- 1\n--- 2",
    ],
)
def test_what_is_no_valid_yaml(tmp_path: Path, content: str) -> None:
    assert "not valid YAML" in refused(tmp_path / "a.yaml", content)


@pytest.mark.parametrize("content", [LAUGHS, MERGES])
def test_aliases_that_stand_for_millions_of_values(tmp_path: Path, content: str) -> None:
    assert len(content) < 2000
    assert "aliases" in refused(tmp_path / "a.yaml", content)


def test_aliases_as_people_use_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("one: &one {x: 1, y: 2}\ntwo: {<<: *one, y: 3}\nthree: [*one, *one]\n")
    content = read_yaml(tmp_path / "a.yaml", "file")
    assert content["two"] == {"x": 1, "y": 3}
    assert content["three"] == [content["one"]] * 2


@pytest.mark.parametrize("again", ["train: {rank: 4}", "'train': {rank: 4}", "evaluate: {steps: 4, steps: 5}"])
def test_a_key_that_stands_twice_is_told_by_its_line(tmp_path: Path, again: str) -> None:
    said = refused(tmp_path / "a.yaml", f"train: {{beta: 5}}\nseed: 1\n{again}\n")
    assert "stands twice (line 3, column" in said
    assert "'train'" in said or "'steps'" in said


def test_keys_that_are_not_the_same_and_merges_of_several(tmp_path: Path) -> None:
    text = "a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: *a, <<: *b, x: 3}\nd: {1: one, '1': text}\n"
    (tmp_path / "a.yaml").write_text(text)
    assert read_yaml(tmp_path / "a.yaml", "settings file")["d"] == {1: "one", "1": "text"}


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    assert "too large" in refused(tmp_path / "a.yaml", b"#" * (MOST_BYTES + 1)).replace("\n", " ")


@pytest.mark.parametrize("content", ["- 1", "3", "1: 2", "text"])
def test_what_is_no_mapping(tmp_path: Path, content: str) -> None:
    assert "must be a mapping" in refused(tmp_path / "a.yaml", content)


def test_a_pipe_a_folder_and_a_name_that_cannot_be(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("pipe.yaml", "folder.yaml", "n" * 300 + ".yaml", "nu\0l.yaml", "absent.yaml"):
        with pytest.raises(DuoError, match="cannot read the settings file"):
            read_yaml(tmp_path / name, "settings file")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfmodel: mini\n")
    assert read_yaml(tmp_path / "a.yaml", "file") == {"model": "mini"}


def test_a_value_by_itself() -> None:
    assert parse_yaml("[1, a, null]", "it") == [1, "a", None]
    assert parse_yaml("", "it") is None
    with pytest.raises(DuoError, match="it is not valid YAML"):
        parse_yaml("[1", "it")


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("a: 1\nb: [1,\nc: 2\n", "(line 4, column 1)", "mend it from line 2 on"),
        ("a: 1\nb: 1: 2\n", "(line 2, column 5)", "mend it from line 2 on"),
        ("a: 2026-13-45", "month must be", "quote what is a text"),
        ("[" * 400_000, "too deeply", "fewer levels"),
    ],
)
def test_a_mistake_is_told_by_its_line_with_what_to_do(text: str, place: str, hint: str) -> None:
    with pytest.raises(DuoError) as caught:
        parse_yaml(text, "it")
    told = str(caught.value)
    assert place in told
    assert hint in told
    assert "unicode string" not in told


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int = Field(0, lt=100)


@pytest.mark.parametrize("value", [10**5000, "x" * 10_000, [[1] * 9] * 999], ids=["number", "text", "list"])
def test_a_value_that_is_too_large_to_print(value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Form.model_validate({"steps": value})
    (phrase,) = faults(caught.value, Form.model_fields)
    assert phrase.startswith("steps: ")
    assert len(phrase) < 250


def test_the_nearest_key_is_suggested() -> None:
    with pytest.raises(ValidationError) as caught:
        Form.model_validate({"stpes": 1, "zzz": 2})
    assert faults(caught.value, Form.model_fields) == [
        "unknown key 'stpes' (did you mean 'steps'?)",
        "unknown key 'zzz'",
    ]
