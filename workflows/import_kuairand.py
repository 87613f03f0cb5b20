"""Real logs: KuaiRand-Pure (https://kuairand.com) as a folder of logs.

    python -m workflows.import_kuairand --source KuaiRand-Pure/data --out runs/kuairand

A request is a user's day. Its candidates: what recall channels fitted on earlier days bring, and its own exposures.
The fine lists have no positions and no scores: `teach` makes them. No feature looks ahead, unless `--statistics` adds
those that do, for the teacher: the hand-picked features stay the same. The result is CC BY-SA 4.0, see its
ATTRIBUTION.md.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from prerank.core import outputs
from prerank.core.cli import run
from prerank.core.config import plain
from prerank.core.storage import staged
from prerank.sources.kuairand.files import fingerprints, read_kuairand
from prerank.sources.kuairand.logs import KuaiRandFacts, Sizes, write_logs


class KuaiRandManifest(KuaiRandFacts, outputs.Manifest):
    """Of finished logs."""


@dataclass(frozen=True, kw_only=True)
class ImportKuaiRand(Sizes):
    """Make the logs of a cascade out of the CSV files of KuaiRand-Pure."""

    source: Path
    """Folder of the release's CSV files."""
    out: Path
    """Folder of logs to write."""
    statistics: bool = False
    """Add the video statistics: averages over the whole month, so they look ahead of any split by time."""


def main(config: ImportKuaiRand) -> KuaiRandFacts:
    """Returns what the manifest says of the logs."""
    began = time.perf_counter()
    settings = {key: value for key, value in plain(config).items() if key not in ("source", "out")}
    if not config.teacher_only:
        del settings["teacher_only"]  # logs from before there was a choice
    inputs = fingerprints(config.source, statistics=config.statistics)
    if outputs.is_done(config.out, kind="logs", config=settings, inputs=inputs):
        print(f"{config.out}: already done")
        return cast("KuaiRandManifest", outputs.read_manifest(config.out, kind="logs"))
    data = read_kuairand(config.source, statistics=config.statistics)
    made = outputs.publish(config.out, kind="logs", config=settings, inputs=inputs)
    with made as (final, extra), staged(final) as folder:
        facts = write_logs(data, folder, config, on_day=lambda day, requests: print(f"{day}: {requests} requests"))
        extra |= facts
    counts = facts["counts"]
    recalled = counts["clicks_recalled_without_the_exposures"] / max(1, counts["clicks"])
    print(
        f"{config.out}: {counts['fine_lists_rows']:,} rows of fine lists, {counts['candidates_rows']:,} of candidates, "
        f"{counts['clicks']:,} clicks, {recalled:.1%} of them recalled, {time.perf_counter() - began:.0f} s"
    )
    return facts


if __name__ == "__main__":
    run(main, ImportKuaiRand)
