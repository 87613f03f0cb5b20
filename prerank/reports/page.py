"""What the pages share: one template of styles, cells of tables, figures in the page's own colours, light and dark."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from prerank.reports.drawing import SERIES, inline_svg
from prerank.reports.words import edges, excludes_zero, label, micros, number


@dataclass(frozen=True)
class Picture:
    figure: Figure
    alt: str
    """What it shows, for who does not see it."""
    caption: str
    """How to read it."""


@dataclass(frozen=True)
class Cell:
    text: str
    small: str | None = None
    """Stands under it."""
    sure: bool = False
    """Whether its interval excludes 0: in bold."""


@dataclass(frozen=True)
class Line:
    """A row of a table on a page."""

    name: str
    cells: list[Cell | None]
    describes: str | None = None


@dataclass(frozen=True)
class Table:
    headings: list[str]
    rows: list[Line]


R = TypeVar("R", bound=Mapping[str, object])
Column = tuple[str, Callable[[R], Cell | None]]
"""A heading, and what a row of the results shows under it."""


def write_page(template: str, path: Path, *, pictures: Mapping[str, Picture], **words: object) -> Path:
    """Renders a template in this folder; styles and figures are in the page, and it asks for nothing from anywhere."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template(template).render(
        colours={f"--{name.replace('_', '-')}": pair[:2] for name, pair in SERIES.items()},
        figures={
            name: {"svg": inline_svg(one.figure, name, one.alt), "caption": one.caption}
            for name, one in pictures.items()
        },
        **words,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def table_of(
    rows: Sequence[R], columns: Sequence[Column[R]], describe: Callable[[R], str | None] = lambda row: None
) -> Table:
    """The rows by their `name`, without the columns that no row fills."""
    filled = [(heading, [cell(row) for row in rows]) for heading, cell in columns]
    filled = [(heading, column) for heading, column in filled if any(column)]
    lines = [
        Line(label(str(row["name"])), [column[i] for _, column in filled], describe(row)) for i, row in enumerate(rows)
    ]
    return Table([heading for heading, _ in filled], lines)


def value_cell(key: str, digits: int | None = None) -> Callable[[Mapping[str, object]], Cell | None]:
    """A cell with its interval: in percent where `digits` is given, as it is with three decimals else."""
    show = f"{{:.{3 if digits is None else digits}f}}".format
    scale = 1 if digits is None else 100

    def cell(row: Mapping[str, object]) -> Cell | None:
        value, interval = number(row, key), edges(row, key)
        if value is None:
            return None
        return Cell(show(scale * value), _to(*(show(scale * edge) for edge in interval)) if interval else None)

    return cell


def difference_cell(of: Callable[[R], Sequence[float] | None]) -> Callable[[R], Cell | None]:
    """A cell of `[difference, lo, hi]` in points, sure where the interval excludes 0."""

    def cell(row: R) -> Cell | None:
        interval = of(row)
        if interval is None:
            return None
        text, *ends = (f"{100 * value:+.1f}" for value in interval)
        return Cell(text, _to(*ends), excludes_zero(interval))

    return cell


def time_cell(key: str, tail: str = "") -> Callable[[Mapping[str, object]], Cell | None]:
    """Microseconds, and under them the 99th percentile."""

    def cell(row: Mapping[str, object]) -> Cell | None:
        value, slowest = number(row, key), number(row, tail)
        if value is None:
            return None
        return Cell(micros(value), None if slowest is None else f"p99 {micros(slowest)}")

    return cell


def text_cell(of: Callable[[R], str]) -> Callable[[R], Cell | None]:
    """A cell of text; empty text is no cell."""

    def cell(row: R) -> Cell | None:
        text = of(row)
        return Cell(text) if text else None

    return cell


def _to(low: str, high: str) -> str:
    return f"{low} to {high}"
