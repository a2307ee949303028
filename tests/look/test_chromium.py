"""The page in a real browser, by keyboard alone: curating, labelling, blinking a comparison; and hostile words."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from duo_unlearn.pairs.manifest import load_pairs
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.labels import read_labels

from ..chromium import browsing, needs_chromium
from ..command import as_process
from ..experiments.small_run import edited_run
from ..report.make_run import add_curves, add_images, add_pairs, add_record
from .test_pairs import HOSTILE

pytestmark = needs_chromium


@contextmanager
def served(run: Run) -> Iterator[str]:
    """The first URL of a run that is served in another process."""
    words = as_process("look", str(run.folder))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@contextmanager
def opened(url: str, **context: Any) -> Iterator[tuple[Any, list[str]]]:
    """A page that has opened a run, and what went wrong in it."""
    with browsing(url, **context) as (page, faults):
        page.wait_for_url("**/")
        yield page, faults


def at(page: Any, path: str) -> None:
    page.goto(page.url.split("/", 3)[0] + "//" + page.url.split("/", 3)[2] + path)


def test_three_pairs_are_curated_and_ten_attempts_labelled_by_keyboard(run: Run) -> None:
    add_pairs(run, count=14)
    add_images(run, count=12)
    add_record(run, sensitive=False)
    with served(run) as url, opened(url) as (page, faults):
        at(page, "/pairs")
        page.keyboard.press("Enter")
        page.wait_for_url("**/pairs/0000")
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**/pairs/0001")
        page.keyboard.press("d")
        page.keyboard.type("the hand is cut off")
        page.keyboard.press("Enter")
        page.wait_for_url("**/pairs/0002?last=0001")
        page.keyboard.press("D")  # at once, for the same reason
        page.wait_for_url("**/pairs/0003?last=0002")
        page.keyboard.press("u")
        page.wait_for_url("**/pairs/0002")
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**/pairs/0003")
        page.keyboard.press("d")
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**/pairs/0004")
        page.keyboard.press("D")
        page.wait_for_url("**/pairs/0005?last=0004")
        dropped = {pair.name: pair.reason for pair in load_pairs(run.pairs) if not pair.keep}
        reason = "the hand is cut off"
        assert dropped == {"0001": reason, "0004": reason, "0005": "the sword is still seen", "0012": dropped["0012"]}

        at(page, "/labels")
        page.keyboard.type("anna")
        page.keyboard.press("Enter")
        shown = page.locator("form.answers")
        # The keys' script has run where a page is complete; a key that comes before it is lost.
        at_next = (
            "was => { const form = document.querySelector('form.answers');"
            " return form && form.getAttribute('action') !== was && document.readyState === 'complete'; }"
        )
        page.wait_for_function(at_next, arg="")
        keys = {"y": "yes", "n": "no", "b": "broken", "s": None}
        wanted = []
        for key in "ynnybsynnyn":
            action = shown.get_attribute("action")
            wanted += [(action.removeprefix("/labels/"), keys[key])] if keys[key] else []
            page.keyboard.press(key)
            page.wait_for_function(at_next, arg=action)
        assert [(label.sha256, label.label) for label in read_labels(run)] == wanted
        assert len(wanted) == 10
        page.keyboard.press("u")
        page.wait_for_url("**again=**")
        assert shown.get_attribute("action").endswith(wanted[-1][0])
        page.set_viewport_size({"width": 390, "height": 844})
        at(page, "/labels/agreement")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert faults == []


def test_hostile_words_run_nowhere_and_pictures_stay_blurred_until_they_are_asked_for(run: Run) -> None:
    add_pairs(run, count=8, prompt=HOSTILE, reason=HOSTILE)
    add_images(run, count=3, prompt=HOSTILE)
    hostile = "<img src=x onerror=alert(3)>"
    add_curves(run, steps=12, name=hostile)
    add_record(run)
    with served(run) as url, opened(url, viewport={"width": 390, "height": 844}) as (page, faults):
        paths = (
            "/",
            "/pairs",
            "/pairs/0005",
            "/attempts",
            "/attempts/duo/direct/direct/0",
            "/labels",
            "/training",
            "/compare",
        )
        for path in paths:
            at(page, path)
            page.wait_for_load_state("networkidle") if path != "/compare" else None
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        at(page, "/training")
        with run.metrics(hostile).open("a") as handle:  # a training that goes on in another process
            handle.write('\n{"step": 13, "loss": 0.5, "preference": 0.5}\n')
        page.get_by_text("step 13").wait_for()
        assert faults == []
        at(page, "/pairs/0001")
        blur = "getComputedStyle(document.querySelector('.picture img')).filter"
        assert "blur" in page.evaluate(blur)
        page.keyboard.press("r")
        assert page.evaluate(blur) == "none"
        at(page, "/pairs/0002")
        assert page.evaluate(blur) == "none"  # asked for once, for this tab
        assert page.evaluate("document.cookie") == ""


def test_a_comparison_is_blinked(tmp_path: Path) -> None:
    run = edited_run(tmp_path).run
    with served(run) as url, opened(url) as (page, faults):
        at(page, "/compare")
        page.keyboard.press("p")
        page.keyboard.type("a red knight holding a sword")
        page.locator("input[name=steps]").fill("2")
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-duel].over", timeout=120_000)
        page.keyboard.press("Escape")
        other = "getComputedStyle(document.querySelector('.duel .other')).visibility"
        assert page.evaluate(other) == "visible"
        page.keyboard.down(" ")
        assert page.evaluate(other) == "hidden"
        page.keyboard.up(" ")
        assert page.evaluate(other) == "visible"
        page.locator("[data-slides]").focus()
        cut = "getComputedStyle(document.querySelector('[data-duel]')).getPropertyValue('--cut')"
        page.keyboard.press("ArrowRight")
        assert page.evaluate(cut) == "51%"
        assert faults == []
