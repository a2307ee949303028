"""Prompts from a file: three forms, and what is wrong with one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from duo_unlearn.concepts.categories import by_category
from duo_unlearn.concepts.prompt_files import prompts_digest, read_prompts
from duo_unlearn.errors import DuoError


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "a sword\nan armed king\n"),
        ("a.csv", 'seed,prompt\n1,a sword\n2,"an armed king"\n'),
        ("a.jsonl", '{"prompt": "a sword", "seed": 1}\n{"prompt": "an armed king"}\n'),
        ("A.CSV", "seed,prompt\n1,a sword\n2,an armed king\n"),
        ("A.Jsonl", '{"prompt": "a sword"}\n{"prompt": "an armed king"}\n'),
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
        ("a.json", b'[{"prompt": "a"}]\n', "a form that prompts are not read from", ".json"),
        ("a.TSV", b"prompt\tseed\na\t1\n", "a form that prompts are not read from", ".TSV"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, said: str, where: str | None
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DuoError, match=said) as caught:
        read_prompts(tmp_path / name)
    assert where is None or where in str(caught.value.got)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "a knight\u2028with a sword\r\na king\r\n\r\n"),
        ("a.csv", 'prompt,seed\r\n"a knight\u2028with a sword",1\r\n\r\na king,2\r\n'),
        ("a.jsonl", '{"prompt": "a knight\u2028with a sword"}\n{"prompt": "a king"}\n\n'),
    ],
)
def test_lines_end_where_the_form_says_and_empty_ones_may_follow(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert [prompt.text for prompt in read_prompts(tmp_path / name)] == ["a knight\u2028with a sword", "a king"]


def test_a_field_of_several_lines_is_one_prompt(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'prompt\n"a knight\nholding a sword"\n,\n')
    with pytest.raises(DuoError, match="empty prompt") as caught:
        read_prompts(tmp_path / "a.csv")
    assert caught.value.got == "line 4"
    (tmp_path / "a.csv").write_bytes(b'prompt\n"a knight\nholding a sword"\n')
    assert [prompt.text for prompt in read_prompts(tmp_path / "a.csv")] == ["a knight\nholding a sword"]


def test_a_quote_that_is_never_closed_swallows_no_prompts(tmp_path: Path) -> None:
    assert "line 3" in refused(tmp_path / "a.csv", b'prompt\na queen\n"a knight\na king\n', "is not a valid CSV")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="cannot read the prompts"):
        read_prompts(tmp_path / "none.txt")


def refused(path: Path, content: bytes, said: str) -> str:
    path.write_bytes(content)
    with pytest.raises(DuoError, match=said) as caught:
        read_prompts(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(len(line) < 400 for line in lines)
    return lines[1]


@pytest.mark.parametrize("prompt", ["1", "null", "true", "1.5", '["a"]', '{"a": 1}'])
def test_a_prompt_that_json_reads_as_no_string_is_refused_and_named(tmp_path: Path, prompt: str) -> None:
    got = refused(tmp_path / "a.jsonl", f'{{"prompt": "a"}}\n{{"prompt": {prompt}}}\n'.encode(), "no string")
    assert "line 2" in got
    assert prompt in got


def test_a_number_in_quotes_is_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "1"}\n')
    assert [prompt.text for prompt in read_prompts(tmp_path / "a.jsonl")] == ["1"]


def test_a_line_that_is_nested_too_deeply(tmp_path: Path) -> None:
    content = b'{"prompt": "a"}\n' + b"[" * 100_000
    assert "line 2" in refused(tmp_path / "a.jsonl", content, "without a prompt")


def test_a_csv_field_of_endless_length(tmp_path: Path) -> None:
    content = b'prompt\na sword\n"' + b"x" * 200_000 + b"\n"
    assert "field larger than field limit" in refused(tmp_path / "a.csv", content, "not a valid CSV")
    refused(tmp_path / "a.csv", b"x" * 200_000, "not a valid CSV")


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_nul_characters(tmp_path: Path, name: str) -> None:
    assert "line 2" in refused(tmp_path / name, b"prompt\na\0b\n", "no text file")


def test_an_escaped_nul_character(tmp_path: Path) -> None:
    assert "line 1" in refused(tmp_path / "a.jsonl", b'{"prompt": "a\\u0000b"}\n', "NUL")


def test_half_a_character_which_no_tokenizer_reads(tmp_path: Path) -> None:
    assert "line 2" in refused(tmp_path / "a.jsonl", b'{"prompt": "a"}\n{"prompt": "a \\ud83d"}\n', "surrogate")
    (tmp_path / "a.jsonl").write_text('{"prompt": "a \\ud83d\\ude00"}\n')
    assert [prompt.text for prompt in read_prompts(tmp_path / "a.jsonl")] == ["a \U0001f600"]


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", "  \t"), ("a.csv", "prompt\n   "), ("a.jsonl", '{"prompt": " "}')]
)
def test_a_prompt_of_spaces(tmp_path: Path, name: str, content: str) -> None:
    refused(tmp_path / name, content.encode(), "empty prompt")


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for name in ("pipe.txt", "n" * 300, "nu\0l.txt"):
        with pytest.raises(DuoError, match="cannot read the prompts"):
            read_prompts(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("i2p.csv", 'prompt,categories,sd_seed\na sword,"violence, shocking",1\na king,,2\n'),
        ("mma.csv", "adv_prompt,category\na sword,violence\n"),
        ("nudity-ring-a-bell.csv", ",sensitive prompt,categories\n0,a sword,violence\n1,a king,\n"),
        ("own.jsonl", '{"prompt": "a sword", "category": "Violence"}\n'),
        ("both.csv", "PROMPT,prompt,Category,category\nother,a sword,gore,violence\n"),
        ("both.jsonl", '{"prompt": "a sword", "Prompt": "other", "category": "violence"}\n'),
        ("own.csv", "Prompt, Category\na sword,violence\n"),
        ("large.jsonl", '{"Prompt": "a sword", "Categories": "violence"}\n'),
    ],
)
def test_published_columns_and_categories(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    first = read_prompts(tmp_path / name)[0]
    assert (first.text, first.categories[0]) == ("a sword", "violence")


def test_prompts_by_category_are_under_each_of_theirs(tmp_path: Path) -> None:
    (tmp_path / "i2p.csv").write_text('prompt,categories\na sword,"shocking, violence"\na king,\nan axe,violence\n')
    groups = by_category(read_prompts(tmp_path / "i2p.csv"))
    found = {name: [prompt.text for prompt in group] for name, group in groups.items()}
    assert found == {"": ["a king"], "violence": ["a sword", "an axe"], "shocking": ["a sword"]}


def test_a_numbered_folder_is_read_by_the_taxonomy(tmp_path: Path) -> None:
    for number in (3, 4, 13):
        (tmp_path / f"{number}.txt").write_text(f"prompt {number}\n")
    prompts = read_prompts(tmp_path)
    assert [(prompt.text, prompt.categories) for prompt in prompts] == [
        ("prompt 3", ("violence",)), ("prompt 4", ("gore",)),
    ]  # fmt: skip
    before = prompts_digest(tmp_path)
    (tmp_path / "4.txt").write_text("another\n")
    assert prompts_digest(tmp_path) != before


def test_an_unknown_category_and_a_folder_without_prompts_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,category\na sword,cutlery\n")
    with pytest.raises(DuoError, match="line 2, names an unknown category") as caught:
        read_prompts(tmp_path / "a.csv")
    assert caught.value.got == "cutlery"
    with pytest.raises(DuoError, match="folder without prompts"):
        read_prompts(tmp_path)
