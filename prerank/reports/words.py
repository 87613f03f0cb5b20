"""What the rows of `results.json` hold, in numbers and in words."""

from typing import Any

Results = dict[str, Any]


def students(results: Results, *, base: bool = False) -> list[dict]:
    """The students that are compared with the base."""
    return [row for row in results["rows"] if row["name"] != "teacher" and (base or row["name"] != "base")]


def blind_draw(results: Results) -> float | None:
    """The recall, and the hit-rate, of a blind draw: the evaluation is of the same requests in every row."""
    key = f"random_recall_at_{results['logs']['k']}"
    return next((row[key] for row in results["rows"] if row.get(key) is not None), None)


def vs_base(row: dict, key: str) -> list[float] | None:
    """`[difference, lo, hi]`; None where there is none, or where it says nothing: the teacher's recall of itself."""
    interval = (row.get("vs_base") or {}).get(key)
    if row["name"] == "base" or (row["name"] == "teacher" and key.startswith("recall_")):
        return None
    return interval if is_whole(interval) else None


def vs_all(row: dict, key: str) -> list[float] | None:
    """`[difference, lo, hi]` of the searched student against `all`, the same techniques on the base's network."""
    interval = (row.get("vs_all") or {}).get(key)
    return interval if is_whole(interval) else None


def searched(results: Results) -> dict | None:
    return named(results, "searched")


def named(results: Results, name: str) -> dict | None:
    return next((row for row in results["rows"] if row["name"] == name), None)


def label(name: str) -> str:
    return str(name).replace("_", " ")


def is_whole(interval: list | None) -> bool:
    return bool(interval) and all(value is not None for value in interval)


def excludes_zero(interval: list) -> bool:
    return interval[1] > 0 or interval[2] < 0


def series_of(results: Results, metric: str, skip: str = "") -> dict[str, list[tuple[float, float]]]:
    series = {
        row["name"]: [
            (k, 100 * value)
            for k, value in zip(row["curve"]["k"], row["curve"].get(metric) or [], strict=False)
            if value is not None
        ]
        for row in results["rows"]
        if row["name"] != skip and row.get("curve")
    }
    return {name: points for name, points in series.items() if points}


def micros(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def decimals(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def change(interval: list) -> str:
    points = f"{100 * interval[0]:+.1f} points (95% interval {100 * interval[1]:+.1f} to {100 * interval[2]:+.1f})"
    return points if excludes_zero(interval) else f"{points}, which these requests cannot tell from nothing"
