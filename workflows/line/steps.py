"""The steps of the line: each runs one command with its share of the options, in a run of its own, or finds it done."""

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from prerank.core.config import names, widths
from prerank.core.counts import lines
from prerank.core.errors import InputError
from prerank.evaluation.preflight import check_clicks, check_lists, check_truth_of, space_of
from prerank.latency.formula import latency_us
from prerank.latency.table import load_table
from prerank.logs.folder import Logs
from prerank.logs.schema import load_schema
from prerank.models.checkpoint import Proof
from prerank.models.options import Arm
from prerank.reports.pipeline.summary import search_facts
from prerank.reports.results import SearchFacts
from prerank.samples.files import candidates_of, check_k
from prerank.search.preflight import check_budget, check_features, check_search
from prerank.tracking.runs import Run, run
from prerank.training.ladder import ladder, only_scores
from prerank.training.variants import check_learn
from workflows import build_samples, profile_latency, search_arch, teach, train_teacher
from workflows.line.options import Pipeline


def check(config: Pipeline, logs: Logs) -> None:
    """Raises InputError where a later step would find fault with the logs or the options, as far as one can know."""
    if config.split.test_days < 1:
        raise InputError(f"split.test_days {config.split.test_days}: expected 1 or more, to evaluate the students on")
    val_from, test_from = config.split.bounds(logs)
    tested = space_of(logs, test_from)
    check_truth_of(logs, test_from)
    check_lists(logs, val_from, test_from, k=config.k, m=config.m)
    check_lists(logs, test_from, None, k=config.k, m=config.m, days="test", tables=(tested,))
    features = check_features(logs.schema, names(config.features), budget_us=config.budget_us)
    options = {name: getattr(config, name) for name in ("hard", "distill", "optim")}
    base = Arm("student", features, widths(config.widths), **options)
    arms = [arm for _, arm in ladder(base).values()]
    ratio, optim = config.unexposed_ratio, config.teacher_optim
    teacher = Arm("teacher", logs.schema.names, widths(config.teacher_widths), hard="listwise", optim=optim)
    for arm in (*arms, replace(teacher, unexposed_ratio=ratio)):
        arm.check()
    check_learn(config.teacher_learn, "mlp", logs.schema.labels)
    check_search(config.search, config.latency, config.distill, name="pipeline")


def prepared(config: Pipeline, logs: Logs, out: Path, parent: Run) -> tuple[Path, Path, dict[str, Proof]]:
    """Builds samples, measures the host, trains the teacher and has it teach; what is there is left alone.

    Returns the latency table, the taught samples and the teacher's proof.
    """
    samples, teacher, taught = out / "samples", out / "teacher", out / "taught"
    with child("build_samples", out, parent) as tracked:
        shared = {name: getattr(config, name) for name in ("seed", "val_requests", "max_dropped", "draw", "split")}
        built = build_samples.main(build_samples.BuildSamples(logs.folder, samples, **shared))
        tracked.metrics({f"samples/{what}": float(rows) for what, _, rows in lines(built["counts"])})
        tracked.artifact(samples / "manifest.json")
    check_k(samples, config.k)
    check_clicks(samples)
    table = profiled(config, samples, out, parent)
    shared = {name: getattr(config, name) for name in ("unexposed_ratio", "k", "seed", "compute")}
    shared |= {"widths": config.teacher_widths, "optim": config.teacher_optim, "learn": config.teacher_learn}
    shared |= {"logs": logs.folder}
    to_teach = train_teacher.TrainTeacher(samples, teacher, **shared)
    proof = train_teacher.main(to_teach, parent)
    with child("teach", out, parent) as tracked:
        rows = teach.main(teach.Teach(samples, teacher, taught, gpu=config.compute.gpu))["rows"]
        tracked.metrics({"requests": float(sum(rows.values()))})
    return table, taught, proof


def child(name: str, out: Path, parent: Run) -> AbstractContextManager[Run]:
    """The run of one step."""
    return run(name, out=out, state=out / f".{name}.run.json", params={}, parent=parent)


def profiled(config: Pipeline, samples: Path, out: Path, parent: Run) -> Path:
    """The latency table of the search; raises InputError where not even the cheapest network fits the budget."""
    table = out / "latency.json"
    candidates = config.latency.candidates or candidates_of(samples)
    profile = profile_latency.ProfileLatency(
        samples,
        table,
        widths=",".join(name for name in names(f"{config.search.widths},{config.widths}") if name != "0"),
        candidates=str(candidates),
        threads=str(config.latency.threads),
        runtimes="onnxruntime",
        networks=10,
    )
    profile_latency.main(profile, parent, any_host=True)  # a job that lost its head goes on where the next one is
    check_budget(search_arch.spec_of(sought(config, samples, table, out)), load_schema(samples))
    return table


def sought(config: Pipeline, samples: Path, table: Path, out: Path) -> search_arch.SearchArch:
    """The search under what the students' features and widths cost, or the budget that is given."""
    schema, latency = load_schema(samples), config.latency
    latency = replace(latency, candidates=latency.candidates or candidates_of(samples))
    measured = load_table(table, candidates=latency.candidates, threads=latency.threads)
    features = schema.select(names(config.features) or schema.student_features, where="--features")
    of_base_us = latency_us(measured, features, schema.fetch, widths(config.widths))
    shared = {name: getattr(config, name) for name in ("widths", "k", "seed", "search", "optim", "compute")}
    shared |= {"distill": only_scores(config.distill)}
    limits = {"budget_us": config.budget_us or of_base_us, "latency": latency}
    return search_arch.SearchArch(samples, table, out / "search", **limits, **shared)


def searched(config: Pipeline, taught: Path, table: Path, out: Path, parent: Run) -> SearchFacts:
    arch = search_arch.main(sought(config, taught, table, out), parent)
    return search_facts(arch, out / "search", load_schema(taught), widths(config.search.widths))


def cold_features(config: Pipeline, taught: Path, table: Path, out: Path, parent: Run) -> tuple[str, ...]:
    """Those that squeeze and excitation values most within the budget."""
    sought_ = sought(config, taught, table, out)
    cold = replace(sought_, out=out / "study" / "cold", search=replace(config.search, method="squeeze_excite"))
    return tuple(search_arch.main(cold, parent)["features"])
