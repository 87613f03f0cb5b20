"""The figures of one search: gates and widths by epoch, and the expected time against the budget.

The search's history alone is drawn, a dict an epoch, as `AutoFAS.facts` gives it; of a rival that tells less there are
fewer figures.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from prerank.models.arch import Arch
from prerank.reports.drawing import INK, MUTED, SERIES, Dash, escape, name_ends, new_axes, new_figure
from prerank.reports.words import label, number
from prerank.search.method import SearchEpoch

History = Sequence[SearchEpoch]
Kind = tuple[str, str, Dash, float]
"""Of a line its name, colour, dash and width."""

STRONG = SERIES["contrast"][0]
TIMES: dict[str, Kind] = {
    "latency_us": ("total", INK, "-", 2.2),
    "inference_us": ("inference", SERIES["bin_pairs"][0], (0, (5, 1.5)), 1.6),
    "fetch_us": ("fetch", STRONG, (0, (1, 1)), 1.6),
}
ENTROPIES: dict[str, Kind] = {
    "gate_entropy": ("gates", STRONG, "-", 1.8),
    "width_entropy": ("widths", SERIES["bin_pairs"][0], (0, (5, 1.5)), 1.8),
}
# Not one hue in steps: thin lines of light steps are lost on a page, and each carries its width at its end.
WIDTHS = [kind for name, kind in SERIES.items() if name not in ("base", "searched", "teacher")]


class Sourced(Protocol):
    """A feature and where it is fetched from."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...


class Priced(Sourced, Protocol):
    """What is drawn of a `Feature`."""

    @property
    def fetch_us(self) -> float: ...


F = TypeVar("F", bound=Sourced)


def search_figures(
    history: History, *, arch: Arch, features: Sequence[Priced], widths: tuple[int, ...], budget_us: float
) -> dict[str, Figure]:
    """The figures that the history has data for: gates, latency, widths.

    history: of each epoch `epoch` and what there is of `gates` {feature: probability}, `widths` [slot][candidate],
    `fetch_us`, `inference_us`, `latency_us`, `gate_entropy` and `width_entropy`; arch: what was derived from it;
    features: those to choose from; widths: the candidates of each slot.
    """
    gates = [(epoch["epoch"], gates) for epoch in history if (gates := epoch.get("gates"))]
    times = [epoch for epoch in history if epoch.get("latency_us")]
    chances = [(epoch["epoch"], chances) for epoch in history if (chances := epoch.get("widths"))]
    drawn = {
        "gates": _gates(gates, arch, features) if gates else None,
        "latency": _latency(times, budget_us) if times else None,
        "widths": _widths(chances, arch, widths) if chances else None,
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def by_source(features: Sequence[F], last: Mapping[str, float]) -> dict[str, list[F]]:
    """The features of each source, those of the highest last probability first."""
    ordered = sorted(features, key=lambda feature: (-last.get(feature.name, 0.0), feature.name))
    return {source: [f for f in ordered if f.source == source] for source in sorted({f.source for f in features})}


def _gates(history: Sequence[tuple[int, dict[str, float]]], arch: Arch, features: Sequence[Priced]) -> Figure:
    """A row a feature, a tile an epoch: as opaque as the gate is probable, so that it shows on any ground."""
    groups = by_source(features, history[-1][1])
    n, lines = len(history), len(features) + 1.4 * len(groups) - 0.4
    figure = new_figure(0.75 + 0.152 * lines)
    _above(figure, "Probability that a feature is kept, by epoch")
    axes = new_axes(figure)
    names = -11 - 4.6 * max(len(f"{feature.fetch_us:,.4g}") for feature in features)  # points: beside the costs
    tiles, opacities = [], []
    y = 0.0
    for source, members in groups.items():
        kept = sum(feature.name in arch.features for feature in members)
        _beside(axes, (0, y), 0, f"{label(source)}: {kept} of {len(members)} kept", ha="left", weight="bold", color=INK)
        _beside(axes, (0, y), -4, "µs", color=MUTED)
        _beside(axes, (1, y), 21, "last", color=MUTED)
        y += 1
        for feature in members:
            is_kept = feature.name in arch.features
            font = {"color": INK, "weight": "bold"} if is_kept else {"color": MUTED}
            chances = [gates.get(feature.name, 0.0) for _, gates in history]
            tiles += [Rectangle((x + 0.04, y - 0.4), 0.92, 0.8) for x in range(n)]
            opacities += chances
            _beside(axes, (0, y), names, label(feature.name), **font)
            _beside(axes, (0, y), -4, f"{feature.fetch_us:,.4g}", **font)
            _beside(axes, (1, y), 21, f"{chances[-1]:.2f}", **font)
            if is_kept:
                _beside(axes, (1, y), 29, "●", color=STRONG)
            y += 1
        y += 0.4
    floor = 0.04  # an unlikely gate is still a tile
    faces = [(STRONG, floor + (1 - floor) * chance) for chance in opacities]
    axes.add_collection(PatchCollection(tiles, facecolors=faces, linewidths=0))
    axes.set_xlim(0, n)
    axes.set_ylim(lines - 0.4, -0.6)
    axes.grid(visible=False)
    axes.set_yticks([])
    every = max(1, -(-n // 8))
    axes.set_xticks([i + 0.5 for i in range(0, n, every)], [f"{history[i][0]:g}" for i in range(0, n, every)])
    axes.set_xlabel("epoch", color=MUTED, fontsize=9)
    return figure


def _beside(
    axes: Axes,
    at: tuple[float, float],
    aside: float,
    text: str,
    *,
    color: str,
    weight: str = "normal",
    ha: str = "right",
) -> None:
    """Text so many points aside of the left (0) or the right (1) of a row of tiles, by default up to there."""
    axes.annotate(
        escape(text), at, (aside, 0), axes.get_yaxis_transform(), "offset points", annotation_clip=False, ha=ha,
        va="center", fontsize=7.5, color=color, weight=weight,
    )  # fmt: skip


def _above(figure: Figure, title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=9.5, color=INK)


def _latency(history: History, budget_us: float) -> Figure:
    entropies = [key for key in ENTROPIES if history[0].get(key) is not None]
    figure = new_figure(4.4 if entropies else 3.0)
    grid = figure.add_gridspec(2 if entropies else 1, 1, height_ratios=[1.7, 1] if entropies else None)
    axes = new_axes(figure, grid[0], title="Expected time of a request, µs")
    axes.axhline(budget_us, color=SERIES["all"][0], linewidth=1.4, linestyle=(0, (2, 2)))
    _lines(axes, history, TIMES, 0.075, [(f"budget {budget_us:,.0f}", budget_us, SERIES["all"][0])])
    if entropies:
        axes = new_axes(figure, grid[1], title="Entropy, nats: 0 is decided")
        _lines(axes, history, {key: ENTROPIES[key] for key in entropies}, 0.13)
    axes.set_xlabel("epoch", color=MUTED, fontsize=9)
    return figure


def _lines(
    axes: Axes, history: History, kinds: Mapping[str, Kind], gap: float, others: Iterable[tuple[str, float, str]] = ()
) -> None:
    """A line from 0 upwards for each key of the history, which carries its name at its end, beside `others`."""
    ends = list(others)
    for key, (name, colour, dash, thick) in kinds.items():
        points = [(epoch["epoch"], value) for epoch in history if (value := number(epoch, key)) is not None]
        if points:
            dots = "o" if len(points) < 3 else ""
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=dash, linewidth=thick, marker=dots)
            last = points[-1][1]
            ends.append((f"{name} {last:,.0f}" if key in TIMES else f"{name} {last:.2f}", last, colour))
    axes.set_ylim(0, 1.05 * max(1e-9, axes.get_ylim()[1]))
    _by_epoch(axes)
    name_ends(axes, ends, gap)


def _by_epoch(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.margins(x=0.01)
    first, last = axes.get_xlim()
    if last - first < 1:  # one epoch alone
        axes.set_xlim(first - 1, last + 1)
    axes.grid(axis="x", visible=False)


def _widths(history: Sequence[tuple[int, list[list[float]]]], arch: Arch, widths: tuple[int, ...]) -> Figure:
    """A panel a layer, two in a row; the width that was chosen is thick."""
    slots = len(history[0][1])
    columns = min(2, slots)
    rows = -(-slots // columns)
    figure = new_figure(0.6 + 2.2 * rows)
    _above(figure, "Probability of each width of a layer, by epoch")
    for slot in range(slots):
        axes = new_axes(figure, (rows, columns, slot + 1), title=f"Layer {slot + 1}")
        ends = []
        for index, width in enumerate(widths):
            colour, _, dash = WIDTHS[index % len(WIDTHS)] if width else SERIES["base"]
            chosen = slot < len(arch.widths) and arch.widths[slot] == width
            points = [(epoch, chances[slot][index]) for epoch, chances in history]
            dots = "o" if len(points) < 3 else ""
            axes.plot(
                *zip(*points, strict=True), color=colour, linestyle=dash, marker=dots, linewidth=3 if chosen else 1.4
            )
            ends.append((f"{width or 'skip'}{' •' if chosen else ''}", points[-1][1], colour))
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1) if slot % columns == 0 else NullFormatter())
        _by_epoch(axes)
        name_ends(axes, ends, 0.1)
        if slot >= slots - columns:
            axes.set_xlabel("epoch", color=MUTED, fontsize=9)
    return figure
