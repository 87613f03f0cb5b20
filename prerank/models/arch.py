"""The architecture of a ranker: the features it reads and the widths of its hidden layers; `arch.json`."""

import json
from dataclasses import dataclass
from pathlib import Path

from prerank.core.errors import InputError


@dataclass(frozen=True)
class Arch:
    features: tuple[str, ...]
    widths: tuple[int, ...]
    """Hidden widths from the input upwards; 0 is the identity: the layer is skipped (AutoFAS)."""

    def save(self, path: Path, **facts: object) -> None:
        """Writes `arch.json`; `facts`, such as predicted times, stand beside and are not read back."""
        saved = {"features": list(self.features), "widths": list(self.widths), **facts}
        path.write_text(json.dumps(saved, indent=1) + "\n")


def load_arch(path: Path) -> Arch:
    """Reads `features` and `widths` of an `arch.json`; other keys, such as predicted times, are passed over."""
    try:
        raw = json.loads(path.read_text())
        features, widths = tuple(raw["features"]), tuple(raw["widths"])
    except (FileNotFoundError, IsADirectoryError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f'{path}: expected {{"features": [names], "widths": [numbers]}}: {error!r}') from error
    if not features or any(isinstance(w, bool) or not isinstance(w, int) or w < 0 for w in widths):
        raise InputError(f"{path}: features must not be empty and widths must be whole numbers >= 0, got {raw}")
    return Arch(features, widths)
