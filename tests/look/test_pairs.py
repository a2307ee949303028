"""Curating pairs on the page: what is shown, what a drop writes, and what hostile or broken pairs do."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from markupsafe import escape
from PIL import Image

from duo_unlearn.pairs.manifest import KindTries, load_pairs, read_manifest, save_manifest
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.pictures import save_png

from ..command import as_process
from ..report.make_run import add_pairs, add_record
from .browser import manifest, opened

HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>{{ 7*7 }}\u202e"


def scored(run: Run) -> None:
    """Scores by place, and two kinds: of figures in the snow, and of others."""
    found = read_manifest(run.pairs)
    pairs = [
        pair.__class__(
            **{
                **pair.__dict__, "unsafe_score": 1 - i / 100, "safe_score": i / 50,
                "unsafe_prompt": f"a {'red' if i % 2 else 'blue'} king {'in the snow' if i < 4 else 'by the sea'}",
                "safe_prompt": "a king",
            }
        )
        for i, pair in enumerate(found.pairs)
    ]  # fmt: skip
    kinds = [KindTries(f"a {{colour}} king {place}", "a king", 4) for place in ("in the snow", "by the sea")]
    save_manifest(run.pairs, concept="sword", settings={}, pairs=pairs, tries=kinds)


def shown(text: str) -> list[str]:
    return re.findall(r'class="card[^"]*" href="/pairs/(\w+)', text)


def test_page_and_command_write_equal_manifests(small: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(small.folder, other)
    client = opened(small)
    for name, reason in (("0001", "the hand is cut off"), ("0004", "")):
        answer = client.post(f"/pairs/{name}/drop", data={"reason": reason})
        assert answer.status_code == 303
        words = [name, *(["--reason", reason] if reason else [])]
        subprocess.run(as_process("drop", str(other), *words), check=True, capture_output=True)
    assert manifest(small) == (other / "pairs" / "manifest.json").read_bytes()
    assert [(p.name, p.reason) for p in load_pairs(small.pairs) if not p.keep][:2] == [
        ("0001", "the hand is cut off"), ("0004", "dropped by hand"),
    ]  # fmt: skip
    client.post("/pairs/0001/undo")
    subprocess.run(as_process("drop", str(other), "0001", "--undo"), check=True, capture_output=True)
    assert manifest(small) == (other / "pairs" / "manifest.json").read_bytes()


def test_a_drop_goes_on_to_the_next_pair_of_the_filter_and_can_be_undone_there(small: Run) -> None:
    client, before = opened(small), manifest(small)
    answer = client.post("/pairs/0004/drop?state=kept", data={"reason": "blurred"})
    assert answer.headers["location"] == "/pairs/0006?state=kept&last=0004"  # 0005 was dropped before
    page = client.get(answer.headers["location"]).text
    assert "<b>0004</b> is dropped: blurred" in page
    assert client.post("/pairs/0004/undo?state=kept").headers["location"] == "/pairs/0004?state=kept"
    assert manifest(small) == before
    assert client.post("/pairs/0013/drop", data={}).headers["location"] == "/pairs/0013?last=0013"


def test_arrows_lead_to_the_neighbours_within_the_filter(small: Run) -> None:
    page = opened(small).get("/pairs/0006?state=kept").text
    assert re.search(r'href="/pairs/0004\?state=kept" data-key="ArrowLeft"', page)
    assert re.search(r'href="/pairs/0007\?state=kept" data-key="ArrowRight"', page)
    assert "ArrowLeft" not in opened(small).get("/pairs/0000").text


def test_filters_by_kind_score_and_state(small: Run) -> None:
    scored(small)
    client = opened(small)
    assert shown(client.get("/pairs?kind=0").text) == ["0000", "0001", "0002", "0003"]
    assert shown(client.get("/pairs?unsafe=0.88").text) == ["0012", "0013"]
    assert shown(client.get("/pairs?safe=0,24&order=safe").text) == ["0013", "0012"]
    assert shown(client.get("/pairs?state=dropped").text) == ["0005", "0012"]
    assert len(shown(client.get("/pairs?kind=x&state=y&unsafe=nan&order=z&page=99").text)) == 14
    assert "No pair is meant" in client.get("/pairs?unsafe=-5").text


def test_a_page_has_a_part_of_many_pairs(run: Run) -> None:
    add_pairs(run, count=100)
    client = opened(run)
    assert len(shown(client.get("/pairs").text)) == 48
    assert shown(client.get("/pairs?page=3").text) == ["0096", "0097", "0098", "0099"]


def test_two_browsers_at_once_lose_nothing(run: Run) -> None:
    add_pairs(run, count=40)
    names = [pair.name for pair in load_pairs(run.pairs) if pair.keep]
    client, other = opened(run), opened(run)
    answers: list[int] = []

    def curate(mine: list[str]) -> None:
        answers.extend(client.post(f"/pairs/{name}/drop", data={"reason": "x"}).status_code for name in mine)

    threads = [threading.Thread(target=curate, args=(names[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [303] * len(names)
    assert not [pair.name for pair in load_pairs(run.pairs) if pair.keep]
    assert "0 of 40 kept" in re.sub("<[^>]+>", "", other.get("/pairs").text)


def test_a_run_that_another_process_holds_is_read_only(small: Run) -> None:
    client, before = opened(small), manifest(small)
    code = "import sys; from pathlib import Path; from duo_unlearn.runs.folder import Run\n"
    code += "with Run(Path(sys.argv[1])).lock(): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(small.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        page = client.get("/pairs/0001")
        assert page.status_code == 200
        assert f"process {holder.pid} works on this run" in page.text
        answer = client.post("/pairs/0001/drop", data={"reason": "x"})
        assert answer.status_code == 409
        assert "nothing is changed" in answer.text
        assert manifest(small) == before
    finally:
        holder.communicate("")


def test_a_lock_that_only_the_drop_meets_is_told(small: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    client, before = opened(small), manifest(small)
    monkeypatch.setattr("duo_unlearn.look.records.holders", lambda _run: None)  # as where the system does not tell
    with small.lock():
        answer = client.post("/pairs/0001/drop", data={"reason": "x"})
    assert answer.status_code == 400
    assert "is in use by another run" in answer.text
    assert manifest(small) == before


def test_hostile_prompts_names_and_reasons_are_escaped(run: Run) -> None:
    add_pairs(run, count=8, prompt=HOSTILE, reason=HOSTILE)
    add_record(run)
    client = opened(run)
    for path in (
        "/pairs",
        "/pairs/0005",
        "/pairs/0001",
        "/pairs/0006?last=0005",
        "/pairs?unsafe=%22%3E%3Cscript%3E",
    ):
        text = client.get(path).text
        assert "<script>" not in text
        assert "onerror='" not in text
        assert "49" not in re.sub(r"[0-9a-f]{64}", "", text)
    answer = client.post("/pairs/0001/drop", data={"reason": HOSTILE + "\n\0\tend" + "x" * 500})
    assert answer.status_code == 303
    reason = next(pair.reason for pair in load_pairs(run.pairs) if pair.name == "0001")
    assert reason is not None
    assert len(reason) == 200
    assert reason.isprintable()
    assert reason.startswith(HOSTILE[:30])
    assert str(escape(reason))[:40] in client.get(answer.headers["location"]).text
    answer = client.get("/pairs/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    assert answer.status_code == 404
    assert "<script>" not in answer.text


def test_what_utf8_cannot_write_is_shown_with_a_question_mark(small: Run) -> None:
    path = small.pairs / "manifest.json"
    path.write_text(path.read_text().replace('"name": "0001"', '"name": "00\\ud800"'), encoding="utf-8")
    client = opened(small)
    assert client.get("/pairs").status_code == client.get("/pairs/0000").status_code == 200


def test_broken_missing_and_replaced_pictures_are_told_and_the_rest_is_shown(small: Run) -> None:
    client = opened(small)
    pairs = load_pairs(small.pairs)
    (small.pairs / pairs[0].unsafe).write_bytes(b"\x89PNG broken")
    (small.pairs / pairs[1].unsafe).unlink()
    save_png(Image.new("RGB", (8, 8), "red"), small.pairs / pairs[2].unsafe)
    for pair in pairs[:3]:
        for room in ("picture", "small"):
            answer = client.get(f"/{room}/{pair.unsafe_sha256}")
            assert answer.status_code == 404
            assert answer.headers["content-type"].startswith("text/html")
        assert client.get(f"/picture/{pair.safe_sha256}").content == (small.pairs / pair.safe).read_bytes()
    assert client.get("/pairs").status_code == client.get("/pairs/0000").status_code == 200


def test_small_pictures_are_made_once(run: Run) -> None:
    add_pairs(run, count=1)
    found = read_manifest(run.pairs)
    large = Image.effect_noise((900, 600), 80)
    pair = found.pairs[0].__class__(
        **{**found.pairs[0].__dict__, "unsafe_sha256": save_png(large, run.pairs / found.pairs[0].unsafe)}
    )
    save_manifest(run.pairs, concept="sword", settings={}, pairs=[pair])
    client = opened(run)
    first = client.get(f"/small/{pair.unsafe_sha256}")
    assert first.headers["content-type"] == "image/webp"
    (made,) = (run.folder / "cache" / "small").iterdir()
    with Image.open(made) as image:
        assert image.size == (256, 171)
    time = made.stat().st_mtime_ns
    assert client.get(f"/small/{pair.unsafe_sha256}").content == first.content
    assert made.stat().st_mtime_ns == time
    assert client.get(f"/small/{pair.safe_sha256}").headers["content-type"] == "image/png"  # small as it is


def test_a_run_without_pairs_and_one_whose_pairs_are_being_made(run: Run) -> None:
    add_record(run)
    client = opened(run)
    assert "no pairs yet" in client.get("/pairs").text
    assert client.get("/pairs/0000").status_code == client.post("/pairs/0000/drop").status_code == 404
    assert client.get("/").status_code == 200
    add_pairs(run, count=3)
    (run.pairs / "manifest.json").rename(run.pairs / "partial.json")
    assert "still being made" in client.get("/pairs/0001").text
    assert client.post("/pairs/0001/drop", data={}).status_code == 400


def test_a_broken_manifest_is_told_in_three_lines(small: Run) -> None:
    client = opened(small)
    (small.pairs / "manifest.json").write_text('{"version": 1, "pai')
    answer = client.get("/pairs")
    assert answer.status_code == 400
    assert "is not valid JSON" in answer.text
    assert "Try" in answer.text
    assert "is not valid JSON" in client.get("/").text
    small.labels.write_text('{"sha256": "a"}\n')
    assert "labels.jsonl line 1" in client.get("/").text
    assert client.get("/attempts").status_code == client.get("/training").status_code == 200


def test_pictures_are_blurred_unless_the_run_says_that_it_needs_none_of_it(small: Run) -> None:
    client = opened(small)
    page = client.get("/pairs").text
    assert 'class=" sensitive"' in page or 'class="tiny sensitive"' in page
    assert 'id="reveal"' in page
    small.update_record(sensitive=False)
    page = client.get("/pairs").text
    assert "sensitive" not in page
    assert 'id="reveal"' not in page


def test_settings_that_were_changed_by_hand_leave_the_first_page_its_rooms(small: Run) -> None:
    small.settings.write_text("evaluate: {steps: many")
    answer = opened(small).get("/")
    assert answer.status_code == 200
    assert 'href="/pairs"' in answer.text
    assert "settings.yaml" in answer.text
