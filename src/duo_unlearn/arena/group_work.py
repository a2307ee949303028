"""What one plan asks for, in parts: what the attack finds for each, the images, and the key they lie under."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from PIL import Image

from ..attacks.interface import Findings, Report, Target, requests_for, why_not
from ..attacks.relearning import benign_texts
from ..concepts.prompt_sets import PromptSet
from ..features.clip import why_no_clip
from ..progress import progress
from ..records import ORIGINAL, Attempt, Prompt
from ..runs.attempts import GroupRecord, Part, is_whole, read_group, read_part, write_part
from ..runs.search_state import NO_STATE
from ..session import Session
from ..settings.sampling import sampling_of
from ..storage.files import digest, sha256_of
from ..storage.pictures import save_png
from .findings import FindingsFile, replayed_file
from .fine_tuning import FineTuning
from .originals import Originals
from .plans import Plan, wider_scenario
from .target import asked_of, attack_seed, base_state, pairs_of, target_of


class GroupWork:
    """The parts of one plan: what is found for each, and its attempts."""

    def __init__(self, session: Session, plan: Plan) -> None:
        self.session, self.plan, self.group = session, plan, plan.group
        self.folder = self.group.folder(session.run)
        self.base, self.of, train = base_state(session), asked_of(session, plan), plan.attack.fine_tune
        self.seed = attack_seed(session, plan)
        self.pairs = session.pairs_digest if "pairs" in plan.attack.needs else ""
        self.contract = str(session.detector.contract) if plan.attack.asks_detector else None
        in_vain = plan.replay is None and self.contract is not None
        self.in_vain = plan.system.why_no_search(str(self.contract)) if in_vain else None
        self.fine_tuning = FineTuning(session, plan, self.base, train) if train is not None else None
        self.whole: set[str] = set()
        known = read_group(self.folder / "group.json") if plan.keeps_wider else None
        if known is not None and known.size > len(plan.scenario.prompts):
            self._divide(wider_scenario(session, plan.scenario, known.size))
            if dict(known.parts) == self.keys:
                return
        self._divide(plan.scenario)

    def _divide(self, scenario: PromptSet) -> None:
        self.scenario, self.size = scenario, len(scenario.prompts)
        most = None if self.plan.preset is None else self.plan.attack.prompts_at_once
        size = min(most or self.session.settings.evaluate.batch, self.size)
        self.slices = {f"{first:04}": slice(first, first + size) for first in range(0, self.size, size)}
        self.keys = {name: self._key(part) for name, part in self.slices.items()}

    def why_not(self) -> str | None:
        """Why the attack cannot run here, or None."""
        plan, model = self.plan, self.session.model
        is_original = plan.system.name == ORIGINAL
        reason = why_not(plan.attack, model, has_edits=bool(plan.system.edits) or is_original)
        if reason is None:
            reason = plan.system.why_idle(model, self.session.settings.evaluate.guidance)
        if reason is None and plan.search == "aware":
            reason = plan.system.why_not_aware()
        if reason is None and not plan.attack.passes_filters:
            reason = self.in_vain
        wanted = getattr(plan.budget, "pictures", 0)
        if reason is None and wanted and wanted > (there := len(pairs_of(self.session, self.of))):
            reason = f"it has {wanted} pictures of the concept, and the run has {there} pairs"
        if reason is None and plan.replay is None and "clip" in plan.attack.needs and self._is_lacking():
            reason = why_no_clip(model.family)
        strength, steps = getattr(plan.budget, "strength", None), self.session.settings.evaluate.steps
        # What is less than a step diffusers' pipelines of UNets leave out.
        if reason is None and strength is not None and model.kind.denoiser == "unet" and int(steps * strength) == 0:
            reason = f"strength {strength:g} of {steps} steps is none: evaluate.steps={math.ceil(1 / strength)} or more"
        # What an older version found without words says nothing: it is refused where it is there too.
        if reason is None and plan.replay is None and "words" in plan.attack.needs and self._is_wordless():
            reason = "it learns the concept from the pairs' prompts, and the run's pairs have none"
        return reason

    def _is_wordless(self) -> bool:
        """Whether the run has pairs, and none of them both its prompts."""
        there = bool(self.session.pairs_digest)
        return there and not any(all(texts) for _, texts in pairs_of(self.session, self.of))

    def record(self, reason: str | None) -> GroupRecord:
        """What group.json says."""
        plan, sampling = self.plan, sampling_of(self.session.settings)
        return GroupRecord(
            self.group, plan.system.sha256, self.scenario.kind, plan.attack.title, dataclasses.asdict(plan.budget),
            self.contract, reason, self.size, {} if reason else self.keys, sampling,
        )  # fmt: skip

    def parts(self) -> list[str]:
        """The names of the parts, which are claimed by them."""
        return list(self.files())

    def files(self) -> dict[str, str]:
        """Name of a part → name of its file in the group's folder."""
        return {self.group.claim(name): name for name in self.slices}

    def is_done(self, part: str) -> bool:
        """Whether a part is there under its key, with the images that were sampled."""
        name = part.rpartition(".")[2]
        if name not in self.whole:
            known = read_part(self.folder / f"{name}.json")
            if known is None or known.key != self.keys[name] or not is_whole(self.session.run, known.attempts):
                return False
            self.whole.add(name)
        return True

    def is_open(self) -> bool:
        """Whether nobody else trains what the attack asks for every part."""
        return self.fine_tuning is None or not self.fine_tuning.is_at_work()

    def cost(self, part: str) -> float:
        """Passes of the denoiser, about: those of its images, and those of a search by its budget."""
        plan, chosen = self.plan, self.slices[part.rpartition(".")[2]]
        steps, prompts = self.session.settings.evaluate.steps, min(chosen.stop, self.size) - chosen.start
        searched = plan.attack.cost(plan.budget, prompts, steps) if plan.replay is None else 0.0
        return float(steps * prompts + searched)

    def _is_lacking(self) -> bool:
        return any(not self.is_done(part) for part in self.parts())

    @contextlib.contextmanager
    def place(self) -> Iterator[Callable[[str], None]]:
        """The model as the system, and as the attack changes it, for all parts of a turn."""
        session, plan = self.session, self.plan
        lacking = sum(not self.is_done(part) for part in self.parts())
        label = f"{self.group.system}: {self.group.scenario}, {self.group.slug}"
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(self.target())
            report = stack.enter_context(progress(f"{label}, percent", 100, quiet=session.quiet))
            if plan.attack.during is not None:
                weights = self.fine_tuning.weights(target) if self.fine_tuning is not None else {}
                stack.enter_context(plan.attack.during(target, plan.budget, weights))
            done = 0

            def make(part: str) -> None:
                nonlocal done
                before = done
                self._make(target, part.rpartition(".")[2], lambda share: report(int(100 * (before + share) / lacking)))
                done += 1

            yield make

    @contextlib.contextmanager
    def target(self) -> Iterator[Target]:
        """The model as the system, and what an attacker of it has."""
        session, plan = self.session, self.plan
        with plan.system.on(session.model, session.guard_context(plan.system), fuse=self.fuses()):
            target = target_of(session, plan.system, plan.search, self.of, passing=self._passes())
            yield target._replace(seed=self.seed)

    def _make(self, target: Target, name: str, report: Report) -> None:
        begin, part = time.monotonic(), self.slices[name]
        found = self._findings(target, name, part, report)
        shown = self.sample(target, self.scenario.prompts[part], self.scenario.seeds[part], found)
        self.keep(target, name, found, shown, time.monotonic() - begin)
        report(1.0)

    def _findings(self, target: Target, name: str, part: slice, report: Report) -> Findings:
        """What the attack finds for a part: searched for once and kept, or another run's."""
        plan = self.plan
        owner = plan.findings_group
        file = FindingsFile(owner.folder(self.session.run) / f"found-{name}.json")
        prompts, seeds = self.scenario.prompts[part], self.scenario.seeds[part]
        if plan.attack.found_on == "nothing":
            return plan.attack.find(target, prompts, seeds, plan.budget, report, NO_STATE)
        if plan.replay is not None:
            return replayed_file(self.session, plan, name, [p.text for p in prompts]).read().findings
        key = self._search_key(part)
        # One process searches, and the others read what it found.
        with self.session.run.claim(owner.claim(f"found-{name}"), wait=True):
            if (known := file.read_if(key)) is not None:
                return known
            state = file.state(key)
            found = plan.attack.find(target, prompts, seeds, plan.budget, report, state)
            file.write(found, key, self.session.model.family, [prompt.text for prompt in prompts])
            state.clear()
            return found

    def sample(
        self, target: Target, prompts: Sequence[Prompt], seeds: Sequence[int], found: Findings
    ) -> list[Image.Image | None]:
        """The images of what was found for some prompts; None in place of one that a guard refused."""
        starts: list[Image.Image | None] = [None] * len(prompts)
        if any(finding.strength is not None for finding in found.findings):
            starts = list(target.originals([prompt.text for prompt in prompts], seeds))
        if self._is_original(found):
            return list(target.originals([finding.text for finding in found.findings], seeds))
        return target.sample(requests_for(found, seeds, starts))

    def keep(
        self, target: Target, name: str, found: Findings, shown: Sequence[Image.Image | None], seconds: float
    ) -> None:
        """Write a part: what was found, the images, and how long both took."""
        plan, run, part, is_original = self.plan, self.session.run, self.slices[name], self._is_original(found)
        prompts, seeds = self.scenario.prompts[part], self.scenario.seeds[part]
        attempts = []
        for i, (prompt, finding, image) in enumerate(zip(prompts, found.findings, shown, strict=True)):
            path = self.folder / f"{part.start + i:04}.png"
            sha256 = None
            if is_original and isinstance(target.originals, Originals):
                path = target.originals.path(finding.text, seeds[i])
                sha256 = sha256_of(path)
            elif image is not None:
                sha256 = save_png(image, path)
            attempts.append(
                Attempt(
                    prompt=prompt.text,
                    shows=dict(prompt.shows),
                    seed=seeds[i] if finding.seed is None else finding.seed,
                    text=finding.text,
                    facts=finding.facts,
                    file=path.relative_to(run.folder).as_posix() if image is not None else None,
                    sha256=sha256,
                    refusal=plan.system.refuser if image is None else None,
                )
            )
        write_part(self.folder / f"{name}.json", Part(self.keys[name], attempts, round(seconds, 1)))

    def _is_original(self, found: Findings) -> bool:
        """Whether the images are the original's of plain prompts, which lie where every stage looks for them."""
        plain = all(finding.is_plain for finding in found.findings)
        return self.plan.system.name == ORIGINAL and self.plan.attack.during is None and plain

    def fuses(self) -> bool:
        """Whether adapters are in the weights: where the settings ask for it, and the attack does nothing but sample.

        Guards may learn something of the system, once for all attacks, so with them nothing is fused.
        """
        plan, settings = self.plan, self.session.settings
        samples = plan.attack.is_shared and plan.attack.during is None
        wanted = settings.evaluate.fuse_adapters and settings.quantize == "no"
        return wanted and samples and bool(plan.system.edits) and not plan.system.guards

    def _key(self, part: slice) -> str:
        plan = self.plan
        basis: dict[str, Any] = {
            "attack": [plan.attack.name, plan.attack.version, dataclasses.asdict(plan.budget), self._search()],
            "prompts": [[p.text, dict(p.shows)] for p in self.scenario.prompts[part]],
            "seeds": self.scenario.seeds[part],
            "base": self.base,
            "system": plan.system.sha256,
            "seed": self.seed,
        }
        basis |= {name: told for name, told in {"pairs": self.pairs, "pairs of": self.of}.items() if told}
        if count := getattr(plan.budget, "benign", 0):
            basis["benign"] = benign_texts(self.session.benign, count)
        if self.fuses():
            basis["fused"] = True  # the last bit of a pixel may differ
        if self.contract is not None:
            basis["contract"] = self._oracle()
        if plan.replay is not None and plan.attack.found_on != "nothing":
            texts = [prompt.text for prompt in self.scenario.prompts[part]]
            basis["replay"] = replayed_file(self.session, plan, f"{part.start:04}", texts).sha256()
        return digest(basis)[:16]

    def _passes(self) -> bool:
        """Whether the search is for images that a guard lets pass: there its detector sees nothing."""
        return self.in_vain is not None and self.plan.attack.passes_filters

    def _oracle(self) -> str | None:
        """Whom the search asks about an image: a detector, or only whether a guard lets it pass that asks this one."""
        return f"passes {self.contract}" if self._passes() else self.contract

    def _search(self) -> str | None:
        """Whether the search sees the guards; where one that does so finds something else than before, its version.

        So for the guards: what is seen of one may be more than before.
        """
        plan = self.plan
        if plan.search != "aware":
            return plan.search
        attack, guards = plan.attack.aware_version, plan.system.aware_versions
        newer = [str(attack)] if attack > 1 else []
        newer += [f"{name} {version}" for name, version in guards.items() if version > 1]
        return " ".join(["aware", *newer])

    def _search_key(self, part: slice) -> str:
        """What decides what a search finds: a shared one depends on no edit; one that needs the pairs, on them."""
        system = "" if self.plan.attack.is_shared else self.plan.system.sha256
        pairs = self.pairs + (f"/{self.of}" if self.of is not None else "")
        plan = self.plan
        texts = [prompt.text for prompt in self.scenario.prompts[part]]
        attack = [plan.attack.name, plan.attack.version, dataclasses.asdict(plan.budget)]
        asks = self._oracle() or ""
        search = None if plan.attack.is_shared else self._search()
        seeds = [self.scenario.seeds[part], self.seed]
        return digest([attack, search, asks, texts, seeds, self.base, system, pairs])[:16]
