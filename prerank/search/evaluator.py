"""What a worker answers: the trainings and the values that a search asks for, from data that it holds in memory."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch

from prerank.core.documents import load_json
from prerank.core.outputs import fingerprint, write_json
from prerank.latency.formula import fetch_us
from prerank.logs.schema import load_schema
from prerank.models.arch import Arch
from prerank.models.distill import Distiller
from prerank.models.ranker import Ranker
from prerank.search.confirm import Ask, Task, Told
from prerank.search.confirmed import LONGER
from prerank.search.gates import gate_values
from prerank.search.rivals import FSCD, Gradient, Permutation, Rival, ShuffleGate, SqueezeExcite
from prerank.search.short import hold, run_steps, trained
from prerank.search.spec import Spec
from prerank.search.trees import tree_values
from prerank.search.values import added, lost
from prerank.training.worker import Job

FOLD = 8
"""Every so-manieth batch is kept from the weights for the values that are reckoned on batches."""
OWN: dict[str, type[Rival]] = {"fscd": FSCD, "squeeze_excite": SqueezeExcite, "shuffle_gate": ShuffleGate}
"""Valuers that train a network of their own, by the kind of a task."""
GATES = "autofas"
"""The valuer that searches within a budget: AutoFAS's gates."""
CEGB = "cegb"
"""The valuer that grows trees."""
PRICED = ("fscd", CEGB)
"""Valuers that hold a feature's price against the budget."""


class Evaluator:
    """Answers tasks one by one; what it answers hangs on the task, the samples and the options alone."""

    def __init__(self, spec: Spec, job: Job):
        torch.set_num_threads(max(1, int(job.compute.cpus)))
        self.spec, self.schema = spec, load_schema(job.samples)
        self.held = hold(spec.arm, job)

    def __call__(self, task: Task) -> Told:
        if task.kind == "train":
            mean_R = np.mean([trained(task.arch, self.held, task.steps, seed)[1] for seed in task.seeds], axis=0)
            return {"metric": [None if np.isnan(x) else float(x) for x in mean_R], "values": []}
        if task.kind == "near":
            seed = task.seeds[0]
            ranker, _ = trained(task.arch, self.held, task.steps, seed)
            of_arch = self.held.of(task.arch)
            others = tuple(feature for feature in self.held.features if feature not in of_arch)
            gained = added(ranker, self._full, self.held, others)
            return {"metric": [], "values": [lost(ranker, self.held, of_arch, seed), gained]}
        return {"metric": [], "values": self._valued(task)}

    @cached_property
    def _full(self) -> Ranker:
        """Of all features, which has learned the embeddings of all ids."""
        arch, steps = Arch(self.spec.arm.features, self.spec.arm.widths), LONGER[1] * self.spec.search.steps
        return trained(arch, self.held, steps, self.spec.arm.seed)[0]

    def _valued(self, task: Task) -> list[dict[str, float]]:
        """network: what the metric and the loss lose by each feature's shuffling, and the loss's gradient; of the other
        kinds, what the method says."""
        if task.kind == CEGB:
            features = self.held.of(task.arch)
            cost_M = np.array([fetch_us([feature], self.schema.fetch) for feature in features]) / task.budget_us
            return [tree_values(self.held.batches, features, cost_M, self.spec.latency.penalty, task.seeds[0])]
        held, out = self.held.without(FOLD)
        features, seed = held.of(task.arch), task.seeds[0]
        arm = replace(held.arm, features=task.arch.features, widths=task.arch.widths, seed=seed)
        made = self.schema, held.stats, held.teacher_width
        spec = replace(self.spec, arm=arm, budget_us=task.budget_us)
        if task.kind == GATES:
            return [self._named(gate_values(spec, self.schema, held, out, task.steps), features)]
        if task.kind in OWN:
            torch.manual_seed(seed)
            method = OWN[task.kind](spec, *made)
            run_steps(method, lambda batch, step: method(batch, step)[0], held, task.steps, seed)
            return [self._named(method.values(out), features)]
        ranker, _ = trained(task.arch, held, task.steps, seed)
        said = [lost(ranker, held, features, seed)]
        # Finished, the student has its score in its last layer, and no projection.
        arm = replace(arm, distill=replace(arm.distill, contrast=0.0, relations=0.0))
        for kind in (Permutation, Gradient):
            method = kind(spec, *made)
            method.distiller = Distiller(ranker, arm, held.teacher_width)
            said.append(self._named(method.values(out), features))
        return said

    def _named(self, values_M: torch.Tensor, features: Sequence[object]) -> dict[str, float]:
        names = [cast(str, getattr(feature, "name")) for feature in features]  # noqa: B009
        return dict(zip(names, values_M.tolist(), strict=True))


def kept(answer: Callable[[Sequence[Task]], Iterable[Told]], folder: Path, key: str) -> Ask:
    """`answer`, which is not asked again what `folder` knows the answer of; each answer is kept by itself."""

    def ask(tasks: Sequence[Task]) -> list[Told]:
        files = [folder / f"{fingerprint([key, asdict(task)])}.json" for task in tasks]
        missing = [place for place, file in enumerate(files) if not file.is_file()]
        for place, told in zip(missing, answer([tasks[place] for place in missing]) if missing else (), strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(files[place], told)
        return [cast(Told, load_json(file)) for file in files]

    return ask
