"""Files are whole or absent, also when the writer fails or the disk is full."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from duo_unlearn.errors import DuoError
from duo_unlearn.storage import files as storage


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_half_way(path: Path) -> None:
    with storage.atomic(path) as temporary:
        temporary.write_text("half of the new")
        raise KeyError("the writer")


def write_to_a_full_disk(path: Path) -> None:
    with storage.atomic(path) as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("new")  # the kernel's own ENOSPC


def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError):
        fail_half_way(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_new_contents_appear_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on the way" / "a.txt"
    with storage.atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]


def test_two_processes_of_one_number_write_one_file(tmp_path: Path) -> None:
    """As two containers whose only process is number 1 do in a folder that they share."""
    path = tmp_path / "a.txt"
    with storage.atomic(path) as first:
        first.write_text("first")
        with storage.atomic(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
        assert first.read_text() == "first"
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    script = (
        "import os, signal, sys; from pathlib import Path; from duo_unlearn.storage.files import atomic\n"
        "with atomic(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60)
    assert done.returncode == -9
    assert path.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_an_error_of_three_lines_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(DuoError, match="the disk is full") as caught:
        write_to_a_full_disk(path)
    assert len(str(caught.value).splitlines()) <= 3
    assert caught.value.hint is not None
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: IoError(Os { code: 28, message: 'No space left on device' })"),
    ],
    ids=["full", "quota", "as safetensors says it"],
)
def test_every_kind_of_full_is_told_as_such(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(DuoError, match="the disk is full"), storage.atomic(tmp_path / "a"):
        raise error


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DuoError, match="cannot write") as caught:
        storage.write_text(tmp_path / "file" / "a.txt", "new")
    assert len(str(caught.value).splitlines()) <= 3


def test_json_roundtrip_keeps_order_and_letters(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None], "a": {"β": "ü"}}
    storage.write_json(tmp_path / "a.json", content)
    found = storage.read_json(tmp_path / "a.json")
    assert found == content
    assert list(found) == ["b", "a"]
    assert "β" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(("content", "message"), [(None, "cannot read"), ("{broken", "not valid JSON")])
def test_json_that_is_missing_or_broken(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DuoError, match=message):
        storage.read_json(path)


def test_sha256_of_a_file_larger_than_a_block(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert storage.sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def three_lines(caught: pytest.ExceptionInfo[DuoError]) -> str:
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() and len(line) < 600 for line in lines)
    return str(caught.value)


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * 200_000)
    with pytest.raises(DuoError, match="not valid JSON") as caught:
        storage.read_json(path)
    assert "nested too deeply" in three_lines(caught)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"9" * 5000, b"{", b""])
def test_json_with_bytes_and_numbers_that_cannot_be(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DuoError, match="not valid JSON") as caught:
        storage.read_json(tmp_path / "a.json", hint="delete it")
    assert "Try: delete it" in three_lines(caught)


@pytest.mark.parametrize("name", ["n" * 256, "ü" * 128, "nu\0l", "way/" * 2000])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    readers = (storage.read_json, storage.read_object, storage.read_bytes, storage.read_tensors, storage.sha256_of)
    for read in readers:
        with pytest.raises(DuoError, match="cannot read") as caught:
            read(path)
        three_lines(caught)
    with pytest.raises(DuoError, match="cannot write") as caught:
        storage.write_text(path, "x")
    three_lines(caught)
    assert not storage.is_regular(path)


@pytest.mark.parametrize("write", [storage.write_text, storage.write_json])
def test_a_text_that_is_not_utf_8_is_told_and_leaves_the_old_file(
    tmp_path: Path, write: Callable[[Path, str], None]
) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(DuoError, match="a text in it is not UTF-8") as caught:
        write(tmp_path / "a", os.fsdecode(b"a caf\xe9"))
    assert "a caf\\udce9" in three_lines(caught)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(DuoError, match="cannot write") as caught:
        storage.write_text(tmp_path / "a" / "b.txt", "x")
    assert "Got: a file in the place of its folder" in three_lines(caught)


def test_a_pipe_and_a_folder_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, got in (("pipe", "a pipe"), ("folder", "a folder")):
        for read in (storage.read_json, storage.read_tensors, storage.sha256_of, storage.read_bytes):
            with pytest.raises(DuoError) as caught:
                read(tmp_path / name)
            assert f"Got: {got}" in three_lines(caught)
        assert not storage.is_regular(tmp_path / name)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert storage.read_bytes(tmp_path / "a", most=5) == b"12345"
    with pytest.raises(DuoError, match="too large"):
        storage.read_bytes(tmp_path / "a", most=4)


def test_an_object_is_read_and_anything_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1]}')
    assert storage.read_object(path) == {"a": [1]}
    for content, kind in (("[1]", "a list"), ('"x"', "a string"), ("null", "null"), ("3", "a number"), ("true", "a")):
        path.write_text(content)
        with pytest.raises(DuoError, match="holds no JSON object") as caught:
            storage.read_object(path, hint="delete it")
        assert f"Got: {kind}" in three_lines(caught)
        assert "Try: delete it" in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"b": {"y": [1, {"z": None, "a": "é"}], "x": {}}, "a": [[], (1, 2), {"k": 0.1}]},
        [{"b": 1, "a": [True]}, "text", 3],
        {2: "numbers sort as numbers", 10: {"b": 1, "a": 2}},
        "text",
        None,
    ],
)
def test_a_digest_is_that_of_the_whole_canonical_text(value: object) -> None:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert storage.digest(value) == hashlib.sha256(text.encode()).hexdigest()


def test_json_is_written_in_pieces_as_it_would_be_whole(tmp_path: Path) -> None:
    content = {"b": [1, {"é": None}], "a": {}, "c": 0.1}
    storage.write_json(tmp_path / "a.json", content)
    expected = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    assert (tmp_path / "a.json").read_bytes() == expected.encode()


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    value = {"b": [1, 2.5, None, "ü"], "a": {"y": True, "x": 0}}
    again = {"a": {"x": 0, "y": True}, "b": [1, 2.5, None, "ü"]}
    assert storage.digest(value) == storage.digest(again)
    assert len(storage.digest(value)) == 64
    assert storage.digest(value) != storage.digest({**value, "b": [1, 2.5, None]})
    expected = hashlib.sha256(b'{"a":[1,"x"]}').hexdigest()
    assert storage.digest({"a": (1, "x")}) == expected


def test_seeds_are_the_same_on_every_machine() -> None:
    assert storage.seed_of(0, "evaluate", "direct", 3) == zlib.crc32(b"0/evaluate/direct/3") & 0x7FFFFFFF
    assert all(0 <= storage.seed_of(i) < 2**31 for i in range(1000))


def test_a_broken_file_is_set_aside_and_an_older_one_replaced(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for content in ("first", "second"):
        path.write_text(content)
        aside = storage.set_aside(path)
        assert aside == tmp_path / "results.json.broken"
        assert not path.exists()
        assert aside.read_text() == content
    with pytest.raises(DuoError, match="cannot write"):
        storage.set_aside(path)
