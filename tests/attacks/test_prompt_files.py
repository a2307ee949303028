"""Prompts from a file: three forms, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from duo_unlearn.attacks.direct import read_prompts
from duo_unlearn.errors import DuoError


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "a sword\nan armed king\n"),
        ("a.csv", 'seed,prompt\n1,a sword\n2,"an armed king"\n'),
        ("a.jsonl", '{"prompt": "a sword", "seed": 1}\n{"prompt": "an armed king"}\n'),
    ],
)
def test_three_forms(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert [prompt.text for prompt in read_prompts(tmp_path / name)] == ["a sword", "an armed king"]


@pytest.mark.parametrize(
    ("name", "content", "said", "where"),
    [
        ("a.txt", b"a sword\n\nan axe\n", "empty prompt", "line 2"),
        ("a.txt", b"a sword\n" + b"x" * 10_000, "10000 characters", "line 2"),
        ("a.txt", b"a sword\nna\xefve\n", "not UTF-8", "line 2"),
        ("a.txt", b"", "no prompt", None),
        ("a.csv", b"text\na sword\n", "no column prompt", "text"),
        ("a.csv", b"prompt,seed\na sword,1\n,2\n", "empty prompt", "line 3"),
        ("a.jsonl", b'{"prompt": "a"}\n{"text": "b"}\n', "without a prompt", "line 2"),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt"\n', "without a prompt", "line 2"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, said: str, where: str | None
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DuoError, match=said) as caught:
        read_prompts(tmp_path / name)
    assert where is None or where in str(caught.value.got)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="cannot read the prompts"):
        read_prompts(tmp_path / "none.txt")
