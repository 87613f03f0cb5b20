"""Compares runs of MLflow over the same requests: one table with paired intervals, Pareto fronts, a page.

    python -m workflows.compare --parents ID --out runs/compare
    python -m workflows.compare --runs ID,ID --out runs/compare
    python -m workflows.compare --query "tags.space = 'joint'" --experiment tune --out runs/compare

OUT then holds compare.html, compare.json and compare.parquet, every run's recall and hit-rate request by request. Of
exactly one parent they are its artifacts as well.
"""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from prerank.core import cli
from prerank.core.config import Positive, Seed, names, plain
from prerank.core.errors import InputError
from prerank.core.outputs import write_json
from prerank.core.storage import write_parquet
from prerank.evaluation.compare_json import Results
from prerank.evaluation.from_mlflow import compare
from prerank.reports.compare.figures import compare_figures
from prerank.reports.compare.page import write_page_of
from prerank.reports.compare.table import terminal_table
from prerank.reports.compare.words import front_sentences, not_shown
from prerank.tracking.faults import masked
from prerank.tracking.find import children, connect, listed, queried
from prerank.tracking.runs import Run, tracking_uri


@dataclass(frozen=True)
class Compare:
    """Compare runs of MLflow over the same requests."""

    out: Path
    parents: str = ""
    """Run ids of sweeps or pipelines, with commas: every comparable child of theirs."""
    runs: str = ""
    """Run ids, with commas."""
    query: str = ""
    """In MLflow's search syntax, such as "tags.space = 'joint'"."""
    experiment: str = ""
    """The experiment of the query; empty: all."""
    tracking_uri: str = ""
    """Default MLFLOW_TRACKING_URI, else the SQLite file mlflow.db beside OUT."""
    base: str = ""
    """Name or run id of what the others are compared with; empty: the best mean recall."""
    top: Positive = 20
    """Rows that the terminal and the page show at once."""
    seed: Seed = 0
    """Of the bootstrap."""


def main(config: Compare) -> Results:
    """Returns what stands in compare.json."""
    if sum(map(bool, (config.parents, config.runs, config.query))) != 1:
        raise InputError("expected one of --parents, --runs and --query")
    if config.experiment and not config.query:
        raise InputError("--experiment is where --query looks; --parents and --runs find their own")
    if config.top < 1:
        raise InputError(f"--top {config.top}: expected 1 or more")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # else a bar for each small file
    out = config.out.resolve()
    client = connect(config.tracking_uri or tracking_uri(out))
    if config.parents:
        found = children(client, names(config.parents))
    else:
        ids, query = names(config.runs), (config.query, config.experiment)
        found = listed(client, ids) if config.runs else queried(client, *query)
    results, requests = compare(client, found, whole=bool(config.parents), base=config.base, seed=config.seed)
    results["command"] = _command(config)
    write_json(out / "compare.json", results)
    write_parquet(requests, out / "compare.parquet")
    page = write_page_of(results, out / "compare.html", top=config.top)
    parents = names(config.parents)
    if len(parents) == 1:
        run = Run(client.tracking_uri, parents[0], client.get_run(parents[0]).info.experiment_id)
        for name in ("compare.html", "compare.json", "compare.parquet"):
            run.artifact(out / name)
        run.figures(compare_figures(results))
    Console(width=max(130, Console().width)).print(terminal_table(results, config.top))
    print(*not_shown(results, config.top), *front_sentences(results), page, sep="\n")
    return results


def _command(config: Compare) -> str:
    defaults = plain(Compare(config.out))
    given = {key: value for key, value in plain(config).items() if key == "out" or value != defaults[key]}
    given |= {"tracking_uri": masked(config.tracking_uri)} if config.tracking_uri else {}
    flags = [f"--{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in given.items()]
    return " ".join(["python -m workflows.compare", *flags])


if __name__ == "__main__":
    cli.run(main, Compare)
