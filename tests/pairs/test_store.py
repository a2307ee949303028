from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from duo_unlearn.errors import DuoError
from duo_unlearn.pairs.manifest import KindTries, read_manifest
from duo_unlearn.pairs.own_pairs import check_pairs, import_pairs, load_pairs, save_manifest, set_keep
from duo_unlearn.records import Pair
from duo_unlearn.storage.files import sha256_of
from duo_unlearn.storage.pictures import open_image, save_png


def picture(path: Path, grey: int = 100, size: tuple[int, int] = (24, 16)) -> Path:
    """A grey picture with a white line at its top."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (grey, grey, grey))
    image.paste("white", (0, 0, size[0], 4))
    image.save(path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three pairs; the extensions of the members differ."""
    for i in range(3):
        picture(tmp_path / "mine" / "unsafe" / f"p{i}.png", 10 + i)
        picture(tmp_path / "mine" / "safe" / f"p{i}.{('png', 'jpg', 'webp')[i]}", 60 + i)
    return tmp_path / "mine"


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    import_pairs(source, tmp_path / "pairs", quiet=True)
    return tmp_path / "pairs"


def edit(folder: Path, change: Any) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def message(caught: pytest.ExceptionInfo[DuoError]) -> str:
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def test_import_copies_normalised_pngs(source: Path, folder: Path) -> None:
    pairs = load_pairs(folder)
    assert [p.name for p in pairs] == ["p0", "p1", "p2"]
    assert [p.safe for p in pairs] == ["safe/p0.png", "safe/p1.png", "safe/p2.png"]
    for pair in pairs:
        assert pair.unsafe_prompt is None
        assert pair.safe_prompt is None
        assert pair.unsafe_sha256 == sha256_of(folder / pair.unsafe)
        assert open_image(folder / pair.unsafe).tobytes() == open_image(source / pair.unsafe).tobytes()
    assert not (folder / "partial.json").exists()
    assert read_manifest(folder).concept is None


def test_importing_the_same_again_changes_nothing(source: Path, folder: Path) -> None:
    set_keep(folder, ["p1"], False, "blurred")
    before = (folder / "manifest.json").stat().st_mtime_ns
    moved = source.rename(source.with_name("moved"))
    pairs = import_pairs(moved, folder, quiet=True)
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    assert [p.keep for p in pairs] == [True, False, True]


def test_pairs_that_are_in_the_run_need_the_place_they_came_from_no_more(source: Path, folder: Path) -> None:
    before = load_pairs(folder)
    set_keep(folder, ["p1"], False, "no hand")
    shutil.rmtree(source)
    assert [pair.keep for pair in import_pairs(source, folder, quiet=True)] == [True, False, True]
    assert [pair.name for pair in before] == ["p0", "p1", "p2"]
    # A name that was mistyped is still one.
    with pytest.raises(DuoError, match="there is no"):
        import_pairs(source.with_name("mien"), folder, quiet=True)
    (folder / "safe" / "p0.png").unlink()
    with pytest.raises(DuoError, match="are missing"):
        import_pairs(source, folder, quiet=True)


def test_importing_other_pairs_into_the_folder_is_refused(source: Path, folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    picture(source / "unsafe" / "p0.png", 11)
    with pytest.raises(DuoError, match="other settings"):
        import_pairs(source, folder, quiet=True)
    assert (folder / "manifest.json").read_bytes() == before


def test_a_killed_import_is_done_again(source: Path, folder: Path) -> None:
    whole = (folder / "manifest.json").read_bytes()
    content = json.loads(whole)
    (folder / "partial.json").write_text(json.dumps(content | {"pairs": []}))
    (folder / "manifest.json").unlink()
    (folder / "safe" / "p2.png").unlink()
    import_pairs(source, folder, quiet=True)
    assert (folder / "manifest.json").read_bytes() == whole


def test_images_that_no_manifest_speaks_of_are_not_overwritten(source: Path, tmp_path: Path) -> None:
    theirs = picture(tmp_path / "out" / "unsafe" / "p0.png", 200)
    before = theirs.read_bytes()
    with pytest.raises(DuoError, match="no manifest"):
        import_pairs(source, tmp_path / "out", quiet=True)
    assert theirs.read_bytes() == before


def test_the_runs_own_folder_as_source(source: Path, folder: Path) -> None:
    assert import_pairs(folder, folder, quiet=True) == load_pairs(folder)
    with pytest.raises(DuoError, match="own folder"):
        import_pairs(source, source, quiet=True)


def test_all_missing_members_are_in_one_error(source: Path, tmp_path: Path) -> None:
    (source / "safe" / "p1.jpg").unlink()
    (source / "safe" / "p2.webp").unlink()
    picture(source / "safe" / "extra.png")
    with pytest.raises(DuoError) as caught:
        import_pairs(source, tmp_path / "pairs", quiet=True)
    for name in ("safe/p1", "safe/p2", "unsafe/extra"):
        assert name in message(caught)
    assert not (tmp_path / "pairs").exists()
    with pytest.raises(DuoError, match="missing"):
        check_pairs(source)


def test_a_stem_used_twice_is_an_error(source: Path, tmp_path: Path) -> None:
    picture(source / "unsafe" / "p1.webp")
    with pytest.raises(DuoError, match=r"p1\.png and p1\.webp"):
        import_pairs(source, tmp_path / "pairs", quiet=True)


def test_empty_and_wrong_sources_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a" / "unsafe").mkdir(parents=True)
    with pytest.raises(DuoError, match="no folder safe/"):
        import_pairs(tmp_path / "a", tmp_path / "pairs", quiet=True)
    (tmp_path / "a" / "safe").mkdir()
    with pytest.raises(DuoError, match="no pairs"):
        import_pairs(tmp_path / "a", tmp_path / "pairs", quiet=True)
    with pytest.raises(DuoError, match="there is no"):
        import_pairs(tmp_path / "b", tmp_path / "pairs", quiet=True)


def test_a_bad_image_stops_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    (source / "safe" / "p2.webp").write_bytes(b"nothing")
    with pytest.raises(DuoError, match=r"p2\.webp"):
        import_pairs(source, tmp_path / "pairs", quiet=True)
    assert not (tmp_path / "pairs").exists()


def test_members_share_their_aspect_ratio(source: Path, tmp_path: Path) -> None:
    picture(source / "safe" / "p0.png", size=(48, 32))
    assert len(import_pairs(source, tmp_path / "pairs", quiet=True)) == 3
    picture(source / "safe" / "p0.png", size=(32, 32))
    with pytest.raises(DuoError, match="aspect ratio") as caught:
        import_pairs(source, tmp_path / "other", quiet=True)
    assert "24×16" in message(caught)
    assert "32×32" in message(caught)


def test_import_from_a_manifest_keeps_what_it_says(source: Path, tmp_path: Path) -> None:
    entries = [
        {"unsafe": "unsafe/p0.png", "safe": "safe/p0.png", "unsafe_prompt": "a", "safe_prompt": "b"},
        {"name": "two", "unsafe": "unsafe/p1.png", "safe": "safe/p1.jpg", "keep": False, "reason": "dark"},
    ]
    (source / "manifest.json").write_text(json.dumps({"pairs": entries}))
    for given, out in ((source, "x"), (source / "manifest.json", "y")):
        first, second = import_pairs(given, tmp_path / out, quiet=True)
        assert (first.name, first.unsafe_prompt, first.safe_prompt, first.keep) == ("p0", "a", "b", True)
        assert (second.name, second.keep, second.reason) == ("two", False, "dark")
        assert second.safe == "safe/two.png"
        assert load_pairs(tmp_path / out) == [first, second]


def test_faults_of_a_brought_manifest(source: Path, tmp_path: Path) -> None:
    def refused(entries: list[dict[str, Any]], match: str) -> None:
        (source / "manifest.json").write_text(json.dumps({"pairs": entries}))
        with pytest.raises(DuoError, match=match):
            import_pairs(source, tmp_path / "pairs", quiet=True)

    good = {"unsafe": "unsafe/p0.png", "safe": "safe/p0.png"}
    refused([good | {"safe": "safe/absent.png"}], "absent")
    refused([good, good], "twice")
    refused([good | {"unsafe_sha256": "0" * 64}], "unsafe_sha256 of pair p0")
    refused([good | {"name": "../p0"}], "plain file name")
    refused([good | {"name": "p" * 250}], "plain file name")
    refused([good | {"safe": "safe/" + "p" * 300}], "missing")
    refused([good | {"saef_prompt": "x"}], "unknown key 'saef_prompt'")
    refused([], "no pairs")


@pytest.mark.parametrize("safe", ["../elsewhere/a.png", "/ABSOLUTE/a.png", "safe/../../elsewhere/a.png"])
def test_a_brought_manifest_names_files_of_its_own_folder_alone(source: Path, tmp_path: Path, safe: str) -> None:
    there = picture(tmp_path / "elsewhere" / "a.png")
    entry = {"unsafe": "unsafe/p0.png", "safe": safe.replace("/ABSOLUTE", str(there.parent))}
    (source / "manifest.json").write_text(json.dumps({"pairs": [entry]}))
    with pytest.raises(DuoError, match="outside its folder") as caught:
        import_pairs(source, tmp_path / "pairs", quiet=True)
    assert entry["safe"] in message(caught)
    with pytest.raises(DuoError, match="outside its folder"):
        check_pairs(source)


def test_identical_members_are_always_refused_and_named(source: Path, tmp_path: Path) -> None:
    for name in ("p0", "same"):
        picture(source / "unsafe" / f"{name}.png", 77)
        picture(source / "safe" / f"{name}.png", 77)
    with pytest.raises(DuoError, match="same image") as caught:
        import_pairs(source, tmp_path / "pairs", trust=True, quiet=True)
    assert "p0, same" in message(caught)
    assert not (tmp_path / "pairs").exists()
    with pytest.raises(DuoError, match="same image"):
        check_pairs(source)


def test_members_of_one_colour_are_refused_and_named(source: Path, tmp_path: Path) -> None:
    Image.new("RGB", (24, 16), (9, 80, 7)).save(source / "safe" / "p0.png")
    with pytest.raises(DuoError, match="one colour") as caught:
        import_pairs(source, tmp_path / "pairs", quiet=True)
    assert str(source / "safe" / "p0.png") in message(caught)
    assert not (tmp_path / "pairs").exists()


def test_manifest_round_trip(tmp_path: Path) -> None:
    digest = save_png(Image.new("RGB", (4, 4)), tmp_path / "unsafe" / "0000.png")
    save_png(Image.new("RGB", (4, 4)), tmp_path / "safe" / "0000.png")
    pair = Pair("0000", "unsafe/0000.png", "safe/0000.png", digest, digest, "a", "b", "a", 7, 8, 0.75, 0.9, 0.1)
    tries = [KindTries("a", "b", 2, 1, 5, {"no concept in the unsafe image": 4})]
    save_manifest(tmp_path, concept="sword", settings={"strength": 0.75}, pairs=[pair], tries=tries)
    found = read_manifest(tmp_path)
    assert found == ("sword", {"strength": 0.75}, [pair], tries, True)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["version"] == 1
    assert content["tries"][0]["rejected"] == {"no concept in the unsafe image": 4}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.update(colour=1), "unknown key 'colour'"),
        (lambda c: c.update(version=2), "unknown version"),
        (lambda c: c["pairs"][1].update(kept=True), "pair 2 .*\n.*unknown key 'kept' \\(did you mean 'keep'"),
        (lambda c: c["pairs"][0].update(keep="no"), "keep"),
        (lambda c: c["pairs"][0].pop("safe"), "safe"),
        (lambda c: c["pairs"][0].update(name="p1"), "twice"),
        (lambda c: c["pairs"][0].update(safe="../safe/p0.png"), "outside"),
        (lambda c: c["pairs"][0].update(safe="/etc/hostname"), "outside"),
        (lambda c: c.update(pairs={}), "pairs"),
        (lambda c: c.update(tries=[{"wanted": 1}]), "tries 1"),
    ],
)
def test_every_entry_is_validated(folder: Path, change: Any, match: str) -> None:
    edit(folder, change)
    with pytest.raises(DuoError, match=match) as caught:
        load_pairs(folder)
    message(caught)


def test_missing_and_changed_files_are_named(folder: Path) -> None:
    shutil.copy(folder / "unsafe" / "p1.png", folder / "unsafe" / "p0.png")
    with pytest.raises(DuoError, match=r"SHA-256 differs\)\nGot: unsafe/p0\.png"):
        load_pairs(folder)
    (folder / "unsafe" / "p1.png").unlink()
    (folder / "safe" / "p2.png").unlink()
    with pytest.raises(DuoError, match=r"unsafe/p1\.png, safe/p2\.png"):
        load_pairs(folder)


def test_no_manifest_and_a_broken_one(folder: Path) -> None:
    with pytest.raises(DuoError, match="no pairs"):
        load_pairs(folder / "unsafe")
    for content, match in (('{"version": 1, "pai', "not valid JSON"), ("[1, 2]", "no JSON object\\nGot: a list")):
        (folder / "manifest.json").write_text(content)
        with pytest.raises(DuoError, match=match):
            load_pairs(folder)


def test_of_many_missing_members_three_are_named(source: Path, tmp_path: Path) -> None:
    for number in range(5):
        picture(source / "unsafe" / f"alone{number}.png", 90 + number)
    with pytest.raises(DuoError, match="members of pairs are missing") as caught:
        import_pairs(source, tmp_path / "pairs", quiet=True)
    assert str(caught.value.got).count("alone") == 2 * 3
    assert str(caught.value.got).endswith("; and 2 more")
