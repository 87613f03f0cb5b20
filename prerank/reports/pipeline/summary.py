"""What a pipeline found, summed up as `results.json` has it, and told to MLflow."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from prerank.evaluation.summed import Evaluation
from prerank.latency.served import Cost
from prerank.logs.schema import Schema
from prerank.models.checkpoint import ModelManifest
from prerank.models.options import Arm
from prerank.reports.pipeline.figures import figures
from prerank.reports.results import FeatureFacts, Results, Row, SearchFacts
from prerank.reports.search.section import pictures
from prerank.search.confirmed import Front
from prerank.search.spec import FoundArch
from prerank.tracking.runs import Run


def rows_of(
    found: Evaluation,
    rungs: Mapping[str, tuple[str, Arm]],
    trained: Mapping[str, ModelManifest],
    costs: Mapping[str, Cost],
) -> list[Row]:
    """A row an arm, with what it is, how it trained and how it differs from `base`; the teacher's is the last."""
    k, rows = found.facts["k"], []
    metrics = {f"recall_at_{k}": "recall", f"hit_rate_at_{k}": "hit_rate"}
    for name, (sentence, _) in rungs.items():
        row = {"name": name, "describes": sentence, **found.rows[name], **costs[name]}
        for other, applies in (("base", name != "base"), ("all", name.startswith(("searched", "no_", "and_")))):
            against = {key: found.against(name, other, column) for key, column in metrics.items()} if applies else {}
            row |= {f"vs_{other}": against} if applies or other == "base" else {}
        rows.append({**row, "history": trained[name]["history"]})
    described = "the fine-ranking model, on all features"
    rows.append({"name": "teacher", "describes": described, **found.rows["teacher"], **costs["teacher"]})
    return cast(list[Row], rows)  # the names of its metrics have the k in them


def search_facts(arch: FoundArch, folder: Path, schema: Schema, widths: tuple[int, ...]) -> SearchFacts:
    """What the report shows of a search.

    folder: that of the search; schema: that of the samples; widths: the candidates of each layer.
    """
    features = [feature.to_json() for feature in schema.features if not feature.teacher_only]
    facts: SearchFacts = {
        "arch": arch,
        "history": json.loads((folder / "history.json").read_text()),
        "widths": list(widths),
        "features": cast(list[FeatureFacts], features),  # and all else that the schema says of them
    }
    front = folder / "front.json"
    if front.is_file():
        facts["front"] = cast(Front, json.loads(front.read_text()))
    return facts


def log(results: Results, out: Path, parent: Run) -> None:
    """The results where people look."""
    for row in results["rows"]:
        parent.metrics({f"test/{row['name']}/{key}": value for key, value in row.items() if isinstance(value, float)})
    parent.artifact(out / "report.html")
    parent.artifact(out / "requests.parquet")
    parent.figures(figures(results) | {name: picture.figure for name, picture in pictures(results).items()})
