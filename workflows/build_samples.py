"""Builds training samples from the logs of a search cascade.

    python -m workflows.build_samples --logs L --out S --strategy exposed,low_rank_negatives

Reads fine_lists, impressions and, for validation, candidates; writes one row a request: train/ with the pools and
pairs of the strategies, val/ with whole candidate lists. The same seed gives the same samples, whatever the machine.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prerank import data
from prerank.cli import run
from prerank.config import plain
from prerank.draw import DrawConfig, check_built, parse_strategies
from prerank.features import statistics
from prerank.logs import open_logs
from prerank.outputs import is_done, publish, read_manifest, write_json
from prerank.samples import Recipe, Split, check_dropped, val_key


@dataclass(frozen=True)
class BuildSamples:
    """Builds training samples from the logs of a search cascade."""

    logs: Path
    """Folder of the logs."""
    out: Path
    """Folder to write, whole or not at all."""
    strategy: str = "all"
    """all, or some of exposed,low_rank_negatives,rank_pairs,bin_pairs."""
    seed: int = 0
    val_requests: int = 300
    """Requests of the validation days that are kept, with all their candidates."""
    max_dropped: float = 0.05
    """Stop where faults of the logs cost more than this share of the rows."""
    blocks: int | None = None
    """About how many parts to cut the logs into; changes no sample."""
    draw: DrawConfig = field(default_factory=DrawConfig)
    split: Split = field(default_factory=Split)


def main(config: BuildSamples) -> dict[str, Any]:
    out = config.out.resolve()
    strategies = parse_strategies(config.strategy)
    config.draw.check()
    logs = open_logs(config.logs.resolve())
    settings = {key: value for key, value in plain(config).items() if key not in ("logs", "out", "blocks", "strategy")}
    identity = {"config": settings | {"strategy": list(strategies)}, "inputs": {"logs": logs.fingerprint}}
    if is_done(out, kind="samples", **identity):
        print(f"{out}: already done")
        return read_manifest(out, kind="samples")

    val_from, test_from = config.split.bounds(logs)
    table = "candidates" if logs.has_candidates else "fine_lists"
    key = val_key(logs, table, val_from, test_from, requests=config.val_requests, seed=config.seed)
    data.start_ray()
    with publish(out, kind="samples", **identity) as (folder, extra):
        recipe = Recipe(logs.schema, config.draw, strategies, config.seed, val_from, test_from, key, table, folder)
        counts = data.build_samples(logs, recipe, blocks=config.blocks)
        check_dropped(counts, config.max_dropped)
        check_built(counts, strategies, positions=logs.has_positions)
        logs.schema.save(folder)
        write_json(folder / "stats.json", statistics(counts.pop("moments")))
        split = {"val_from": str(val_from), "test_from": str(test_from)}
        draw = {name.removeprefix("draw."): value for name, value in settings.items() if name.startswith("draw.")}
        extra |= {"rows": counts.pop("files"), "counts": counts, "split": split, "draw": draw}
        extra |= {"strategies": list(strategies), "seed": config.seed, "positions": logs.has_positions}
    Console().print(summary(counts))
    print(f"{out}: {counts['built']['requests']:,} training requests, {sum(counts['pairs'].values()):,} pairs")
    return read_manifest(out, kind="samples")


def summary(counts: dict[str, Any]) -> Table:
    table = Table("", "requests", "rows", title="Samples")
    for title, found in (("read", {"fine lists": counts["read"]}), *((k, counts[k]) for k in ("dropped", "noted"))):
        for reason, n in found.items():
            table.add_row(f"{title}: {reason}", f"{n['requests']:,}", f"{n['rows']:,}")
    table.add_row("built: train", *(f"{counts['built'][k]:,}" for k in ("requests", "rows")))
    for name, n in counts["pairs"].items():
        table.add_row(f"pairs: {name}", f"{counts['requests_with_pairs'][name]:,}", f"{n:,}")
    return table


if __name__ == "__main__":
    run(main, BuildSamples)
