"""What a teacher's training came to, for the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from prerank.models.checkpoint import ModelManifest, Proof


def show(proof: Mapping[str, Proof], k: int) -> None:
    """The teacher beside the single groups, on the clicked items of the validation day's full candidates."""
    table = Table(title="Does the teacher find what was clicked? (validation day, all candidates)")
    for column in ("trained on", f"hit-rate@{k}", "AUC within the request"):
        table.add_column(column)
    for name, values in proof.items():
        label = "all features (the teacher)" if name == "teacher" else f"{name} features alone"
        table.add_row(label, f"{values['hit_rate']:.3f}", f"{values['auc']:.3f}")
    Console().print(table)


def told(manifest: ModelManifest, k: int) -> list[str]:
    """Which variant was kept, and how far the teacher agrees with the logs' fine ranking and with the truth."""
    lines: list[str] = []
    if tried := manifest.get("variants"):
        each = ", ".join(f"{name} {auc:.4f}" for name, auc in tried.items())
        lines.append(f"kept: the variant {max(tried, key=tried.__getitem__)!r}, by the AUC of clicks ({each})")
    agrees = manifest.get("agreement", {})
    words = {
        "fine_score": "with the logged fine_score {:.3f}",
        "in_list": "with the truth {:.3f} within the fine list",
        "outside": "with the truth {:.3f} outside it",
    }
    if said := [words[name].format(agrees[name]) for name in words if name in agrees]:
        lines.append(f"rank correlation (validation day, within a request): {', '.join(said)}")
    if "kept" in agrees:
        lines.append(f"of the truly best {k} it has {agrees['kept']:.1%} among its first {k}")
    return lines
