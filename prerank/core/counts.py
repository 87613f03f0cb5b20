"""What was read, built and dropped, and why: nested dictionaries of numbers that parts of a job return and add up."""

from prerank.core.errors import InputError

FAULTS = {
    "lists": ("null_key", "duplicate_item", "positions_not_a_permutation"),
    "impressions": ("impression_null_key", "impression_without_list", "impression_not_in_list"),
}


def count(counts: dict, reason: str, rows: int, requests: int) -> None:
    if rows:
        merge(counts, {reason: {"rows": rows, "requests": requests}})


def merge(total: dict, part: dict) -> dict:
    """Adds the leaves of `part` (numbers, moments) to those of `total`, in place."""
    for key, value in part.items():
        if isinstance(value, dict):
            merge(total.setdefault(key, {}), value)
        else:
            total[key] = total[key] + value if key in total else value
    return total


def check_dropped(counts: dict, most: float, table: str = "fine_lists") -> None:
    """Raises InputError where faults cost more than this share of the rows of a table, or of its impressions.

    `table` is the one whose rows were counted; what a build counts of candidates/ lies within, and is checked too.
    """
    of = "" if table == "fine_lists" else f" of {table}"
    read = counts["read"]
    for name, rows, reasons in (
        (table, read["rows"], FAULTS["lists"]),
        (f"impressions{of}", read["impressions"], FAULTS["impressions"]),
    ):
        faults = {reason: counts["dropped"][reason]["rows"] for reason in reasons if reason in counts["dropped"]}
        if sum(faults.values()) > most * rows:
            found = ", ".join(f"{reason} {n:,}" for reason, n in faults.items())
            raise InputError(
                f"{name}: {sum(faults.values()):,} of {rows:,} rows dropped for faults ({found}), more than "
                f"max_dropped {most:g}; correct the logs, or allow more"
            )
    if "candidates" in counts:
        check_dropped(counts["candidates"], most, "candidates")


def lines(counts: dict) -> list[tuple[str, int, int]]:
    """(what, requests, rows or pairs) of a build of samples, for a table."""
    out = _found(counts, "")
    out.append(("built", counts["built"]["requests"], counts["built"]["rows"]))
    out += [(f"pairs: {name}", counts["requests_with_pairs"][name], n) for name, n in counts["pairs"].items()]
    return out + (_found(counts["candidates"], "candidates ") if "candidates" in counts else [])


def _found(counts: dict, prefix: str) -> list[tuple[str, int, int]]:
    out = [(f"{prefix}read", counts["read"]["requests"], counts["read"]["rows"])]
    for title in ("dropped", "noted"):
        out += [(f"{prefix}{title}: {why}", n["requests"], n["rows"]) for why, n in sorted(counts[title].items())]
    return out
