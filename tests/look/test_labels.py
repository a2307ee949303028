"""Labelling on the page: blind, by strata, on the disk before the answer, and what the labels say."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections import Counter

import pytest

from duo_unlearn.look.labels import order_of
from duo_unlearn.look.records import Records
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.labels import Label, append_label, read_labels
from duo_unlearn.settings.tree import Settings, write_settings

from ..command import as_process
from ..report.make_run import JUDGE, add_images, add_record, add_results
from .browser import TestClient, opened
from .test_pairs import HOSTILE

httpx = pytest.importorskip("httpx2", reason="what Starlette's test client needs")


def next_of(client: TestClient, name: str) -> str:
    """The picture that a person is shown."""
    found = re.search(r'action="/labels/([0-9a-f]{64})"', client.get("/labels", params={"labeller": name}).text)
    assert found is not None
    return found[1]


def say(client: TestClient, sha256: str, label: str, name: str = "anna") -> int:
    return client.post(f"/labels/{sha256}", data={"labeller": name, "label": label, "judge": "0"}).status_code


def test_a_label_is_written_with_the_stratum_it_was_drawn_by(asked: Run) -> None:
    client = opened(asked)
    told = {one.sha256: one.stratum for one in order_of(Records(asked), Records(asked).verdicts()[0])}
    for word in ("yes", "no", "broken", "yes"):
        sha256 = next_of(client, "anna")
        assert say(client, sha256, word) == 303
        assert read_labels(asked)[-1] == Label(sha256, word, "anna", told[sha256], JUDGE)  # type: ignore[arg-type]
    assert len({label.sha256 for label in read_labels(asked)}) == 4


def test_a_label_of_a_picture_that_no_dsr_is_of_now_is_not_counted_among_them(asked: Run) -> None:
    append_label(asked, Label("0" * 64, "yes", "anna"))
    client = opened(asked)
    say(client, next_of(client, "anna"), "no")
    assert f"1 labelled by anna, of {len(Records(asked).pool())}." in client.get("/labels?labeller=anna").text


def test_what_is_shown_tells_neither_system_nor_verdict_nor_prompt(asked: Run) -> None:
    client = opened(asked)
    entries = Records(asked).pool()
    sha256 = next_of(client, "anna")
    page = client.get("/labels?labeller=anna").text
    main = page.partition("<main")[2].partition("</main>")[0]
    attempt = entries[sha256]
    for word in (attempt.attempt.text, attempt.record.group.slug, JUDGE, "mini-judge", "original", "stratum", "seen"):
        assert word not in main
    assert "system" not in main


def test_of_joined_concepts_each_counts_by_itself(asked: Run) -> None:
    write_settings(asked.settings, Settings(output=asked.folder, concept="sword+balloon"))
    page = opened(asked).get("/labels?labeller=anna").text
    assert "Does it show “sword or balloon”?" in page


def test_everybody_is_shown_the_same_pictures_and_their_order_does_not_tell_the_verdict(asked: Run) -> None:
    client = opened(asked)
    order = order_of(Records(asked), Records(asked).verdicts()[0])
    for name in ("anna", "ben"):
        for one in order[:5]:
            assert next_of(client, name) == one.sha256
            say(client, one.sha256, "no", name)
    words = [one.stratum for one in order]
    few = Counter(words[:40])
    assert min(few["yes"], few["no"]) >= 12  # though most pictures show no sword
    assert len(set(zip(words[:20:2], words[1:20:2], strict=True))) > 1
    assert len({one.sha256 for one in order}) == len(order) == len(Records(asked).pool())


def test_only_pictures_that_a_dsr_is_of_are_labelled(asked: Run) -> None:
    kinds = {entry.record.kind for entry in Records(asked).pool().values()}
    assert kinds == {"attack"}
    keep = next(e for e in Records(asked).attempts() if e.record.kind == "keep" and e.attempt.sha256)
    client = opened(asked)
    assert say(client, str(keep.attempt.sha256), "yes") == 404
    assert not asked.labels.exists()


def test_skip_and_back_and_another_word(asked: Run) -> None:
    client = opened(asked)
    first = next_of(client, "anna")
    say(client, first, "skip")
    assert not asked.labels.exists()
    second = next_of(client, "anna")
    assert second != first
    assert next_of(client, "ben") == first  # a skip is one person's
    say(client, second, "yes")
    page = client.get("/labels", params={"labeller": "anna", "before": second}).text
    back = re.search(r'href="(/labels\?[^"]*again=' + second + ')"', page)
    assert back is not None
    page = client.get(back[1].replace("&amp;", "&")).text
    assert "You said <b>yes</b>" in page
    say(client, second, "no")
    assert [(label.sha256, label.label) for label in read_labels(asked)] == [(second, "no")]


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"labeller": "anna", "label": "maybe"}, 400),
        ({"labeller": "anna"}, 400),
        ({"labeller": "", "label": "yes"}, 400),
        ({"labeller": "\n\0 ", "label": "yes"}, 400),
    ],
)
def test_what_is_no_label_is_told_and_not_written(asked: Run, form: dict[str, str], status: int) -> None:
    client = opened(asked)
    answer = client.post(f"/labels/{next_of(client, 'anna')}", data=form)
    assert answer.status_code == status
    assert "Try" in answer.text
    assert not asked.labels.exists()


def test_a_hostile_name_is_one_line_and_escaped(asked: Run) -> None:
    client = opened(asked)
    say(client, next_of(client, HOSTILE), "yes", HOSTILE + "\n{}")
    (line,) = asked.labels.read_text().splitlines()
    assert json.loads(line)["labeller"].startswith('"><script>')
    for path in ("/labels", "/labels/agreement", "/"):
        assert "<script>" not in client.get(path).text
    assert (
        "<script>" not in client.get("/labels", params={"labeller": HOSTILE, "again": HOSTILE, "before": HOSTILE}).text
    )


def test_what_the_labels_say(asked: Run) -> None:
    client = opened(asked)
    order = order_of(Records(asked), Records(asked).verdicts()[0])
    for i, one in enumerate(order[:20]):
        say(client, one.sha256, str(one.stratum), "anna")
        say(client, one.sha256, "yes" if one.stratum == "no" and i % 5 == 0 else str(one.stratum), "ben")
    page = re.sub(r"\s+", " ", re.sub("<[^>]+>", "", client.get("/labels/agreement").text))
    assert re.search(r"anna and ben agree on 1\d of 20, Cohen's κ 0\.\d\d", page)
    assert "sensitivity" in page
    assert "drawn by verdict" in page


def test_labels_of_nobody_and_of_a_run_that_nobody_judged(run: Run) -> None:
    add_record(run)
    client = opened(run)
    assert "nothing to label yet" in client.get("/labels").text
    assert client.get("/labels/agreement").headers["location"] == "/labels"
    add_images(run, count=3, judged=False)
    assert say(client, next_of(client, "anna"), "yes") == 303
    (label,) = read_labels(run)
    assert (label.stratum, label.contract) == (None, None)


def test_when_all_are_labelled_it_says_so(run: Run) -> None:
    add_images(run, count=2)
    add_results(run)
    client = opened(run)
    for one in order_of(Records(run), Records(run).verdicts()[0]):
        say(client, one.sha256, "no")
    assert "All done" in client.get("/labels?labeller=anna").text


def test_labels_that_others_add_meanwhile_count(asked: Run) -> None:
    client = opened(asked)
    first = next_of(client, "anna")
    append_label(asked, Label(first, "yes", "anna"))
    assert next_of(client, "anna") != first


def test_no_label_that_was_answered_is_lost_by_a_kill(asked: Run) -> None:
    given = []
    words = as_process("look", str(asked.folder))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            base = url.partition("/open")[0]
            with httpx.Client(base_url=base, headers={"Origin": base}) as client:
                assert client.get(url).status_code == 200
                for word in ("yes", "no", "broken"):
                    given.append((next_of(client, "anna"), word))
                    say(client, *given[-1])
        finally:
            server.send_signal(signal.SIGKILL)
    assert [(label.sha256, label.label) for label in read_labels(asked)] == given
    client = opened(asked)
    assert say(client, next_of(client, "anna"), "no") == 303
    assert len(read_labels(asked)) == 4
