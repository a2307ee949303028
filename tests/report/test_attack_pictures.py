"""What was tried, in pictures: blurred where sensitive, left out on request, and text that cannot run."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from duo_unlearn.errors import DuoError
from duo_unlearn.report.page import write_report
from duo_unlearn.runs.attempts import Group
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.verdicts import Reading
from duo_unlearn.settings.tree import Settings, write_settings
from duo_unlearn.storage.files import write_json

from .html_page import assert_inert, page_of
from .make_run import (
    TWO,
    absence,
    add_pairs,
    attack_estimate,
    attempt_of,
    judgement,
    plain_estimates,
    write,
    write_attempts,
    write_judgements,
)  # fmt: skip

HOSTILE = "</figcaption><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


def fight(run: Run, name: str = "p4d", text: str = "rod figure king", *, sensitive: bool = True) -> None:
    """A run that was attacked and judged: three prompts, of which duo shows one, and one is unscored."""
    readings: dict[str, Reading] = {}
    for system, seen in (("original", (True, True, True)), ("duo", (False, True, None))):
        group = Group(system, "direct", "p4d", "quick")
        attempts = []
        for i, detected in enumerate(seen):
            image = Image.new("RGB", (8, 8), (40 * i, 0, 9 * len(system)))
            path = group.folder(run) / f"{i:04}.png"
            attempts.append(attempt_of(run, path, image, "a king", i, f"{text} {system} {i}"))
            if detected is not None:
                readings[attempts[-1].sha256 or ""] = judgement(detected)
        write_attempts(run, group, attempts, seconds=61.0)
    write_judgements(run, readings)
    write(run, [attack_estimate(name, system, 1, 2, unscored=1) for system in TWO])
    run.update_record(sensitive=sensitive, stages={"train": {"seconds": 60.0, "finished": "now"}})


def test_what_was_tried_is_shown_with_counts_and_time(run: Run) -> None:
    fight(run)
    page = page_of(run)
    assert "Concept seen: original 3 of 3, duo 1 of 2." in page.text  # the unscored one is not among them
    assert "rod figure king duo 1" in page.text  # the caption is what was found on the edited model
    assert "rod figure king original 1" not in page.text
    assert any("rod figure king original 1" in (image["alt"] or "") for image in page.all("img"))
    assert "2:02 on original, duo" in page.text
    assert "3:02 of one machine" in page.text
    assert page.source.count('<label class="picture') == 6  # blurred until clicked
    data = json.loads(run.report_data.read_text())
    assert data["machine_time"] == "3:02"
    assert data["estimates"][0]["attack"] == "p4d"


def test_a_page_without_pictures_has_counts_and_no_prompts(run: Run) -> None:
    fight(run)
    add_pairs(run, count=8)
    secret = "/home/someone/secret place"
    write_settings(run.settings, Settings(model=f"{secret}/sd14", output=run.folder))
    run.update_record(base={"source": f"{secret}/weights"}, model=f"{secret}/sd14")
    reason = f"1 image had no verdict: {secret}/0001.png is broken"
    write(
        run,
        plain_estimates(),
        model=f"{secret}/sd14",
        absent=[absence(reason), absence("weights are not in ~/hidden/cache/net.pth", metric="lpips")],
    )
    prompts = [pair["unsafe_prompt"] for pair in json.loads((run.pairs / "manifest.json").read_text())["pairs"]]
    path = write_report(run, images=False)
    page = path.read_text()
    assert path == run.report_to_share
    assert not run.report.exists()
    assert "data:image" not in page
    assert "rod figure king" not in page
    assert "secret place" not in page
    assert "sd14" in page
    assert "weights are not in net.pth" in page
    assert prompts
    assert not any(prompt and prompt in page for prompt in prompts)
    assert "Concept seen: original 3 of 3, duo 1 of 2." in page
    assert "has no pictures" in page


def test_a_page_to_share_names_no_folder_of_a_judges_model(run: Run) -> None:
    """Its contract does, and stands in the tables, below the plots and among what has no number."""
    place, kept = "/home/someone/secret place/nsfw", "q16[model=google/vit>=0.5]@2"
    contract = f"classifier[model={place}|unsafe=sword>=0.5]@1a2b3c4d"
    scores = [*plain_estimates(), *(attack_estimate("p4d", name, 3, contract=kept) for name in ("original", "duo"))]
    scores += [attack_estimate(f"relearning-concept-{n}", "duo", 3, contract=contract) for n in (100, 300)]
    guard = {"name": "output-filter", "options": {}, "pairs": "", "detector": contract}
    entries: list[dict[str, Any]] = [{"name": "original", "sha256": "0", "edits": [], "guards": []}]
    entries += [{"name": "duo", "sha256": "d", "edits": [], "guards": []}]
    entries += [{"name": "duo+output-filter", "sha256": "f", "edits": [], "guards": [guard]}]
    seen = attack_estimate(None, "duo", 20, contract=contract)
    seen = dataclasses.replace(seen, system="duo+output-filter", sha256="f")
    scores = [dataclasses.replace(e, sha256={"original": "0", "duo": "d"}[e.system]) for e in scores]
    absent = [absence(f"not judged under {contract}: duo judge RUN")]
    write(run, [*scores, seen], entries=entries, absent=absent)
    guards: dict[str, Any] = {"output-filter": {"labels": [f"model={place}"]}}
    joined = f"sword+{place}/umbrella.yaml"
    write_settings(run.settings, Settings(output=run.folder, concept=joined, guards=guards))
    assert place in write_report(run).read_text()
    page = write_report(run, images=False).read_text()
    assert "secret place" not in page
    assert "sword+umbrella.yaml" in page
    assert "classifier[model=nsfw|unsafe=sword&gt;=0.5]@1a2b3c4d" in page
    assert "its guard output-filter refuses every image in which that judge sees the concept" in page
    assert "q16[model=google/vit&gt;=0.5]@2" in page


def sweep_of(**changed: Any) -> dict[str, Any]:
    points = [
        {"at": at, "kept": [kept, kept - 0.01, kept + 0.01, 100], "defence": {"direct": [dsr, dsr, 1.0, 100]}}
        for at, kept, dsr in ((9.0, 0.95, 0.99), (100.0, 0.99, 0.6))
    ]
    return {"version": 1, "kind": "beta", "want_dsr": 0.95, "points": points, "ship": 9.0, **changed}


def test_the_frontier_says_what_to_ship(run: Run) -> None:
    write_json(run.sweep / "beta.json", sweep_of())
    assert "not by their intervals: β 9 preserves most of those." in page_of(run).text
    write_json(run.sweep / "beta.json", sweep_of(ship=None))
    assert "no β of these does" in page_of(run).text
    write_json(run.sweep / "beta.json", sweep_of(points=[{"at": 1}]))
    with pytest.raises(DuoError, match="sweep over beta is broken"):
        write_report(run)
    write_json(run.sweep / "beta.json", [])
    with pytest.raises(DuoError, match="holds no JSON object"):
        write_report(run)


def test_hostile_names_and_prompts_are_text(run: Run) -> None:
    fight(run, name=HOSTILE, text=HOSTILE, sensitive=False)
    page = page_of(run)
    assert_inert(page)
    assert "<script" not in page.source
    assert "<img src=x" not in page.source
    assert "&lt;script&gt;" in page.source


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_hostile_text_does_not_run_in_a_browser(run: Run, tmp_path: Path) -> None:
    fight(run, name=HOSTILE, text=HOSTILE)
    bare = tmp_path / "bare.html"
    bare.write_text(f"<!doctype html><title>free</title><p>{HOSTILE}</p>")

    def title(page: Path) -> str:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]
        command = ["chromium", *flags, page.as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        return shown.partition("<title>")[2].partition("</title>")[0]

    assert title(bare) == "taken"  # where nothing is escaped it does run
    assert title(write_report(run)) == "Erasing sword: report"
