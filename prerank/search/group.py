"""Searches on a cluster: those that train one network on Ray Train, those by proposals on processes side by side.

One worker group runs any number of the former over the same samples, one after the other, as
`prerank.training.group` does for arms: a checkpoint holds the finished searches and the state of the one under way,
and the same call goes on from it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from prerank.core.cluster.pool import Pool
from prerank.core.config import plain
from prerank.core.errors import InputError
from prerank.core.outputs import fingerprint, read_manifest
from prerank.logs.schema import Schema, load_schema
from prerank.models import checkpoint
from prerank.models.batch import Batch
from prerank.models.checkpoint import State
from prerank.models.stats import load_stats
from prerank.samples.batches import columns, training_batch
from prerank.samples.files import check_k, files_of
from prerank.samples.reader import Reader
from prerank.samples.taught import teacher_column, teacher_width
from prerank.search.autofas import AutoFAS
from prerank.search.confirm import FIRST
from prerank.search.confirmed import Confirmed
from prerank.search.evaluator import Evaluator, kept
from prerank.search.found import Found, Last, found_in
from prerank.search.loop import make_optimizer, search_steps
from prerank.search.method import Facts
from prerank.search.options import MethodName, Search
from prerank.search.portfolio import VALUERS, alone, find
from prerank.search.preflight import check_budget
from prerank.search.rivals import RIVALS, Rival, untrained_values
from prerank.search.spec import Spec
from prerank.tracking.runs import Run
from prerank.training.few import said_of_few
from prerank.training.group import RUN, Shared, launch, train_worker
from prerank.training.loop import Lesson
from prerank.training.options import Compute
from prerank.training.preflight import check
from prerank.training.worker import Job, Worker, check_memory, validation

METHODS: dict[MethodName, type[AutoFAS] | type[Rival]] = {"autofas": AutoFAS, **RIVALS}
"""Those that train, by the name of `Search.method`; each is a `prerank.search.method.Method`."""
UNTRAINED: tuple[MethodName, ...] = ("random", "hand_picked")
"""Those that look at no data."""


class Searches(Shared):
    specs: list[Spec]


def search_all(
    specs: list[Spec], samples: Path, work: Path, *, compute: Compute, k: int, runs: dict[str, Run]
) -> dict[str, Found | Confirmed]:
    """Runs the searches and returns them by the names of their arms; `work` keeps the checkpoints.

    Raises InputError where the samples, the latency table or the options do not fit each other.
    """
    samples, schema = samples.resolve(), load_schema(samples)
    for spec in specs:
        check_spec(spec, samples, schema)
    if any(spec.arm.select_by == "recall" for spec in specs):
        check_k(samples, k)
    untrained = {s.arm.name: s for s in specs if s.search.method in UNTRAINED}
    proposing = [spec for spec in specs if spec.confirms]
    trained = [spec for spec in specs if spec.arm.name not in untrained and spec not in proposing]
    found: dict[str, Found | Confirmed] = {name: _untrained(spec, schema) for name, spec in untrained.items()}
    job = Job(samples, compute, k)
    grounds: dict[str, list[Spec]] = {}
    for spec in proposing:
        grounds.setdefault(_ground(spec, job), []).append(spec)
    for ground, alike in grounds.items():
        for said in said_of_few("search", [alike[0].arm], samples, compute):
            print(said)
        found |= _proposed(alike, job, work, ground)
    if trained:
        for fold in dict.fromkeys(spec.search.fold for spec in trained):
            arms = [spec.arm for spec in trained if spec.search.fold == fold]
            for said in said_of_few("search", arms, samples, compute, fold=fold):
                print(said)
        name = f"{RUN}{key_of(trained, samples, k, compute.lanes)}"
        searches = {name: Searches(specs=trained, job=job, runs=runs)}
        done = launch(_search_all, searches, work=work, compute=compute)
        with done[name].as_directory() as folder:
            found |= {spec.arm.name: found_in(Path(folder), spec) for spec in trained}
    return {spec.arm.name: found[spec.arm.name] for spec in specs}


def key_of(specs: list[Spec], samples: Path, k: int, lanes: int) -> str:
    """What checkpoints are kept under."""

    def options(spec: Spec) -> dict[str, object]:
        """Without those of proposals where they say nothing, so that what stands from before they were there counts;
        with whom the search by proposals hears."""
        alone = () if spec.confirms else ("trainings", "steps", "front")
        heard = {"valuers": VALUERS} if spec.search.method == "propose" else {}
        return {key: value for key, value in plain(spec.search).items() if key not in alone} | heard

    said = [
        [s.arm.said(), options(s), plain(s.latency), s.table.fingerprint, s.table.candidates, s.budget_us]
        for s in specs
    ]
    return fingerprint([said, k, lanes, read_manifest(samples, kind="samples")["fingerprint"]])


def check_spec(spec: Spec, samples: Path, schema: Schema) -> None:
    """Raises InputError where a search cannot be run on these samples with this table, or nothing fits its budget."""
    arm, search = spec.arm, spec.search
    search.check(arm.name)
    spec.latency.check(arm.name)
    if search.joint and not (arm.distill.score or arm.distill.kl or arm.distill.contrast):
        raise InputError(f"{arm.name}: search.joint distils the ranking network: give distill.score a weight")
    check([arm], samples, taught=not search.joint)
    check_budget(spec, schema)


def _untrained(spec: Spec, schema: Schema) -> Found:
    values = untrained_values(spec.search.method, spec.features(schema), schema.hand_picked, spec.arm.seed)
    return Found(spec, [], tuple(values.tolist()), spec.fixed_log_p())


def _ground(spec: Spec, job: Job) -> str:
    """What the answers to the questions of a search by proposals follow from: neither its budgets nor its method."""
    asked = replace(spec.search, method="propose", trainings=Search().trainings, front="")
    ground = replace(spec, arm=replace(spec.arm, name=""), search=asked, budget_us=0.0)
    return key_of([ground], job.samples, job.k, job.compute.lanes)


def _proposed(specs: Sequence[Spec], job: Job, work: Path, ground: str) -> dict[str, Confirmed]:
    """Searches of one ground, by as many processes as the cluster has room for; by the names of their arms.

    What they answered stays in `work`: no question is asked twice, and what is looked for within another budget later
    begins with what is known.
    """
    schema, found = load_schema(job.samples), dict[str, Confirmed]()
    with Pool(partial(Evaluator, specs[0], replace(job, tables={})), cpus=job.compute.cpus, most=FIRST) as pool:
        told = kept(pool, work / "told", ground)
        for spec in specs:
            search = find if spec.search.method == "propose" else alone
            found[spec.arm.name] = search(spec, schema, told, partial(print, flush=True))
    return found


def proposed_here(spec: Spec, job: Job) -> Confirmed:
    """The same in this process, and nothing is kept."""
    evaluator = Evaluator(spec, job)
    search = find if spec.search.method == "propose" else alone
    return search(spec, load_schema(job.samples), lambda tasks: [evaluator(task) for task in tasks])


def _search_all(job: Searches) -> None:
    with train_worker(job) as worker:
        for spec in job["specs"]:
            run_search(spec, job["job"], worker)


def run_search(spec: Spec, job: Job, worker: Worker) -> None:
    """Runs the search, or goes on with it; at the end the worker's folder holds what `found_in` reads."""
    arm, search, samples, compute, done = spec.arm, spec.search, job.samples, job.compute, worker.done
    if worker.finished(arm.name):
        return
    schema = load_schema(samples)
    features = spec.features(schema)
    check_memory(features, worker.device)
    torch.manual_seed(arm.seed)
    contrasted = teacher_width(samples) if arm.distill.contrast and not search.joint else None
    method = METHODS[search.method](spec, schema, load_stats(samples), contrasted)
    model = worker.prepare(method)
    optimizer, state = make_optimizer(method, arm, search), State()
    if worker.under_way(arm.name):
        state, _ = checkpoint.load_state(done, arm.name, method, optimizer)
    learned = None if search.joint else teacher_column(samples)
    reader = Reader(
        files_of(samples, "train"),
        columns(arm, learned),
        arm.optim.batch,
        compute.lanes,
        worker.rank,
        worker.world,
        arm.seed,
        search.fold,
        epoch_steps=arm.optim.epoch_steps,
        tables=job.tables,
        kept=worker.kept,
    )
    held_out = replace(reader, held_out=True, epoch_steps=1)
    total = search.epochs * reader.steps

    def save(state: State) -> None:
        if worker.rank == 0:
            checkpoint.save_state(done, arm.name, state, method, optimizer, {})
        worker.keep(arm.name, state, False)

    def said() -> str:
        return note(method.facts())

    def progress(state: State) -> None:
        worker.tell(arm.name, state.epoch * reader.steps + state.step, total, said)

    lesson = Lesson(arm, features, reader, validation(job, features, worker), learned, compute.checkpoint_steps)
    search_steps(lesson, search, held_out, model, optimizer, state=state, save=save, progress=progress)
    worker.tell(arm.name, total, total, said, now=True)
    (done / f"{arm.name}.latest.safetensors").unlink(missing_ok=True)
    if worker.rank == 0:
        # By one worker from all held-out batches, so that the values are the same for any number of workers.
        every = replace(held_out, rank=0, world=1)

        def batches() -> Iterator[Batch]:
            for table in every.epoch(0):
                yield training_batch(table, arm, features, 0, learned).to(worker.device)

        last: Last = {"values": method.values(batches()).tolist(), "log_p": method.log_p()}
        state.history.append({**last})
        checkpoint.save_best(done, arm.name, state, {})
    worker.keep(arm.name, state, True)


def note(facts: Facts) -> str:
    """Where a search stands, in a few words beside its progress bar."""
    said: list[str] = []
    if "latency_us" in facts:
        said.append(f"{facts['latency_us']:.0f} µs expected")
    if "gate_entropy" in facts:
        said.append(f"gates {facts['gate_entropy']:.2f} nats")
    if "width_entropy" in facts:
        said.append(f"widths {facts['width_entropy']:.2f} nats")
    return ", ".join(said)
