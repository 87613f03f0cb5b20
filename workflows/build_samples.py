"""Builds training samples from the logs of a search cascade.

    python -m workflows.build_samples --logs L --out S --strategy exposed,low_rank_negatives

Reads fine_lists, impressions and, for validation, candidates; writes one row a request: train/ with the pools and
pairs of the strategies, val/ with whole candidate lists, or whole fine lists where the logs have no candidates of the
validation days. The same seed gives the same samples, whatever the machine.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prerank.core.cli import run
from prerank.core.cluster.start import start_ray
from prerank.core.config import Positive, Seed, Share, Within, plain
from prerank.core.counts import check_dropped, check_scores, lines, said_of_lists
from prerank.core.outputs import publish, write_json
from prerank.logs.folder import open_logs
from prerank.logs.outliers import share, stand_ins
from prerank.logs.statistics import statistics
from prerank.samples import job
from prerank.samples.build import Recipe, Split, no_validation, validation
from prerank.samples.draw import DrawConfig, parse_strategies
from prerank.samples.features import check_features, rows_of_features, said_of_features, said_of_values
from prerank.samples.files import SamplesManifest, built_before, remember, samples_manifest
from prerank.samples.fitting import check_built, fitted, said_of_draw
from prerank.samples.starts import check_starts


@dataclass(frozen=True)
class BuildSamples:
    """Builds training samples from the logs of a search cascade."""

    logs: Path
    """Folder of the logs."""
    out: Path
    """Folder to write, whole or not at all."""
    strategy: str = "all"
    """all, or some of exposed,low_rank_negatives,rank_pairs,bin_pairs."""
    seed: Seed = 0
    val_requests: Positive = 300
    """Requests of the validation days that are kept, with all their candidates."""
    max_dropped: Share = 0.05
    """Stop where faults of the logs cost more than this share of the rows."""
    blocks: Annotated[int | None, Within(1)] = None
    """About how many parts to cut the logs into. The rows stay the same; the files and row groups that they lie in, and
    with them the batches of a training on these samples, do not."""
    draw: DrawConfig = field(default_factory=DrawConfig)
    split: Split = field(default_factory=Split)


def main(config: BuildSamples) -> SamplesManifest:
    """Returns the manifest of the samples."""
    out = config.out.resolve()
    strategies = parse_strategies(config.strategy)
    config.draw.check()
    logs = open_logs(config.logs.resolve())
    settings = {key: value for key, value in plain(config).items() if key not in ("logs", "out", "blocks", "strategy")}
    settings |= {"strategy": list(strategies)}
    done = built_before(out, settings, logs)
    if done:
        print(f"{out}: already done")
        return done
    for name, table in logs.tables.items():
        if table.passed_over:
            print(f"note: {name}: not read, as they are no Parquet files: {', '.join(table.passed_over[:5])}")
        for copy, of in table.copies[:5]:
            print(f"note: {name}: {copy} seems to be a copy of {of}; rows that stand twice count once")

    split = config.split.bounds(logs)
    table, key = validation(logs, *split, requests=config.val_requests, seed=config.seed)
    if table == "fine_lists":
        missing = "of the validation days in candidates/" if logs.has_candidates else "in the logs"
        print(f"note: no candidates {missing}: validation on the fine lists")
    start_ray()
    with publish(out, kind="samples", config=settings, inputs={"logs": logs.fingerprint}) as (folder, extra):
        draw = fitted(config.draw, logs)
        sampled = share(logs.tables["fine_lists"].rows)
        recipe = Recipe(logs.schema, draw, strategies, config.seed, *split, key, table, folder, sampled)
        built = job.build_samples(logs, recipe, blocks=config.blocks)
        counts = built.counts
        check_dropped(counts, config.max_dropped)
        check_scores(counts)
        check_starts(built.starts, counts.get("candidates"), config.max_dropped)
        check_built(counts, strategies, positions=logs.has_positions)
        check_features(counts, logs.schema, config.max_dropped)
        if not any(name.startswith("val/") for name in built.files):
            raise no_validation(logs, *split)
        logs.schema.save(folder)
        write_json(folder / "stats.json", statistics(built.moments, built.inside))
        likely = stand_ins(built.sample)
        extra |= {"stand_ins": likely} if likely else {}
        remember(logs, folder)
        extra |= recipe.facts() | {"rows": built.files, "counts": counts, "positions": logs.has_positions}
    summary = Table("", "requests", "rows or pairs", title="Samples")
    for what, *numbers in (*lines(counts), *rows_of_features(counts)):
        summary.add_row(Text(what), *("" if n is None else f"{n:,}" for n in numbers))
    Console().print(summary)
    days = int((logs.days[1] - logs.days[0]).astype(int)) + 1
    of_lists = said_of_lists(counts, days, {"validation": config.split.val_days, "test": config.split.test_days})
    of_features = said_of_features(counts, logs.schema, likely)
    of_features += said_of_values({**built.moments, **built.inside}, built.ends)
    for said in (*of_lists, *said_of_draw(draw, counts, strategies), *of_features):
        print(said)
    print(f"{out}: {counts['built']['requests']:,} training requests, {sum(counts['pairs'].values()):,} pairs")
    return samples_manifest(out)


if __name__ == "__main__":
    run(main, BuildSamples)
