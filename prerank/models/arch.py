"""The architecture of a ranker: what it is, the features it reads, the widths of its hidden layers; `arch.json`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from prerank.core.errors import InputError
from prerank.models.fusion import ONE_HEAD, Fusion

ModelName = Literal["mlp", "linear", "logistic", "two_tower", "two_tower_gbdt", "gbdt"]
"""What `prerank.models.scorers` builds."""


@dataclass(frozen=True)
class Arch:
    features: tuple[str, ...]
    widths: tuple[int, ...]
    """Hidden widths from the input upwards; 0 is the identity: the layer is skipped (AutoFAS)."""
    model: ModelName = "mlp"
    crosses: tuple[str, ...] = ()
    """Of a logistic regression: pairs of ids, `a*b`, that have a weight for each pair of their values."""
    fusion: Fusion = ONE_HEAD

    def save(self, path: Path, **facts: object) -> None:
        """Writes `arch.json`; `facts`, such as predicted times, stand beside and are not read back."""
        saved: dict[str, object] = {"features": list(self.features), "widths": list(self.widths), **facts}
        if self.model != "mlp":  # files of earlier versions do not say
            saved |= {"model": self.model, "crosses": list(self.crosses)}
        if self.fusion.heads:
            saved["fusion"] = dict(zip(self.fusion.heads, self.fusion.shares, strict=True))
        path.write_text(json.dumps(saved, indent=1) + "\n")


def load_arch(path: Path) -> Arch:
    """Reads `features`, `widths` and what the model is; other keys, such as predicted times, are passed over."""
    try:
        raw = json.loads(path.read_text())
        features, widths = tuple(raw["features"]), tuple(raw["widths"])
        model, crosses = raw.get("model", "mlp"), tuple(raw.get("crosses", ()))
        fused = {str(head): float(share) for head, share in raw.get("fusion", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f'{path}: expected {{"features": [names], "widths": [numbers]}}: {error!r}') from error
    if not features or any(isinstance(w, bool) or not isinstance(w, int) or w < 0 for w in widths):
        raise InputError(f"{path}: features must not be empty and widths must be whole numbers >= 0, got {raw}")
    if model not in get_args(ModelName):
        raise InputError(f"{path}: model must be one of {', '.join(get_args(ModelName))}, got {model!r}")
    return Arch(features, widths, model, crosses, Fusion(tuple(fused), tuple(fused.values())))
