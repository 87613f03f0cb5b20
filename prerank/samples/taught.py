"""The columns that a folder of samples has: the teacher's among them, and what it takes to score its requests."""

from pathlib import Path

import pyarrow as pa

from prerank.core.storage import parquet
from prerank.logs.schema import Feature
from prerank.models.fusion import ONE_HEAD, Fusion
from prerank.samples.files import files_of
from prerank.samples.heads import label_of, teacher_of


def teacher_column(samples: Path, split: str = "train") -> str | None:
    """The column with the teacher's score: ours, or the one that the logs brought (which candidates do not have)."""
    present = columns_in(samples, split).names
    return next((name for name in ("teacher_score", "fine_score") if name in present), None)


def teacher_width(samples: Path) -> int:
    """Numbers of the teacher's representation, which the samples must have."""
    return columns_in(samples, "train").field("teacher_repr").type.value_type.list_size


def scored_columns(features: tuple[Feature, ...], score: str | None, fusion: Fusion = ONE_HEAD) -> tuple[str, ...]:
    """What it takes to score requests and to hold that against clicks and, with a column `score`, the teacher."""
    names = [*(f.name for f in features), "item_id", "exposed", "clicked", "converted", *([score] if score else [])]
    names += [label_of(head) for head in fusion.heads] + [teacher_of(h, score) for h in fusion.heads if score]
    return tuple(dict.fromkeys(names))


def columns_in(samples: Path, split: str) -> pa.Schema:
    """None where the split has no files."""
    files = files_of(samples, split)
    if not files:
        return pa.schema([])
    with parquet(files[0]) as file:
        return file.schema_arrow
