"""`latency.json`: what layers and input paths were measured to take, read as a table."""

import bisect
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from prerank.core.errors import InputError
from prerank.core.outputs import fingerprint
from prerank.latency.file import Entry, LayerTimes, Runtime
from prerank.logs.schema import Feature
from prerank.serving.timing import Stat

HEAD = 1  # out of the last layer: one score a candidate


@dataclass(frozen=True)
class Table:
    """One setting of `latency.json`: the `p5` of its times, to which a busy machine adds least."""

    runtime: Runtime
    candidates: int
    """Items of one request."""
    threads: int
    overhead_us: float
    """A run of the session that does next to nothing, and what numbers cost once: few networks have none."""
    inputs_us: dict[str, float]
    """What the path from each feature's input to the first layer adds."""
    ins: tuple[int, ...]
    """Widths into a layer, ascending."""
    outs: tuple[int, ...]
    """Widths out of a layer, ascending; `HEAD` is among them."""
    layer_us: tuple[tuple[float, ...], ...]
    """[in][out]"""
    fingerprint: str
    """Of the content of the file."""
    machine: str = ""
    """Fingerprint of the host that measured it; empty where the file does not say."""
    list_length: int = 8
    """Values in a row of a multi-valued id."""
    packed: bool = False
    """Whether the inputs of the network were packed."""
    yardstick_us: float | None = None
    """What the yardstick took beside it where nothing else ran; None in files of earlier versions, whose times are by
    another rule."""

    def at(self, width_in: int, width_out: int) -> float:
        """T[in, out], linear between the measured widths in, and below the smallest as the smallest.

        Raises InputError for a width in above the largest measured and for a width out that was not measured.
        """
        self.check(width_in, (width_out,))
        column = self.outs.index(width_out)
        high = bisect.bisect_left(self.ins, width_in)
        if width_in <= self.ins[0] or self.ins[high] == width_in:
            return self.layer_us[high][column]
        low_us, high_us = self.layer_us[high - 1][column], self.layer_us[high][column]
        part = (width_in - self.ins[high - 1]) / (self.ins[high] - self.ins[high - 1])
        return low_us + part * (high_us - low_us)

    def check(self, width_in: int, outs: Iterable[int] = (), features: Iterable[Feature] = ()) -> None:
        """Raises InputError where the table cannot say what these widths and features cost."""
        fault = f"latency table ({self.runtime}, {self.candidates} candidates)"
        again = "run workflows.profile_latency again with it"
        if width_in > self.ins[-1]:
            raise InputError(f"{fault}: {width_in} inputs of a layer, measured up to {self.ins[-1]}; {again}")
        for out in outs:
            if out not in self.outs:
                raise InputError(f"{fault}: width {out} out of a layer, measured are {self.outs}; {again}")
        for feature in features:
            if feature.name not in self.inputs_us:
                raise InputError(f"{fault}: feature {feature.name!r} was not measured; {again}")


def load_table(path: Path, *, candidates: int, threads: int = 1, runtime: Runtime = "onnxruntime") -> Table:
    """Reads one setting of the `latency.json` of workflows.profile_latency.

    Raises InputError if the file is missing or broken, or has no such setting (it names those that it has).
    """
    try:
        raw = json.loads(path.read_text())
        settings = {(s["runtime"], s["candidates"], s["threads"]): s for s in raw["settings"]}
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected the latency.json of workflows.profile_latency: {error!r}") from error
    if (runtime, candidates, threads) not in settings:
        there = "; ".join(f"{r}, {c} candidates, {t} threads" for r, c, t in sorted(settings))
        raise InputError(
            f"{path}: no setting {runtime}, {candidates} candidates, {threads} threads; there are: {there}"
        )
    setting = settings[runtime, candidates, threads]
    try:
        table = table_of(setting, fingerprint(raw))
        config, machine = raw.get("config", {}), raw.get("machine", {}).get("fingerprint", "")
        length, packed = config.get("list_length", table.list_length), config.get("packed", False)
        return replace(table, machine=machine, list_length=length, packed=packed)
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{path}: setting {runtime}, {candidates} candidates, {threads} threads: {error!r} is missing; "
            "layers_us needs each in with each out, and the out 1; run workflows.profile_latency again"
        ) from error


def table_of(setting: Entry, file_fingerprint: str) -> Table:
    """Raises KeyError where a layer is missing."""
    layers = {(layer["in"], layer["out"]): _us(layer) for layer in setting["layers_us"]}
    ins, outs = (tuple(sorted(set(widths))) for widths in zip(*layers, strict=True)) if layers else ((), ())
    if HEAD not in outs:
        raise KeyError("layers_us with out 1")
    yards_us = setting["meanwhile"]["yardstick_us"] if "numbers_us" in setting and "meanwhile" in setting else None
    return Table(
        runtime=setting["runtime"],
        candidates=setting["candidates"],
        threads=setting["threads"],
        overhead_us=_us(setting["overhead_us"]) + (_us(setting["numbers_us"]) if "numbers_us" in setting else 0.0),
        inputs_us={name: _us(stat) for name, stat in setting["inputs_us"].items()},
        ins=ins,
        outs=outs,
        layer_us=tuple(tuple(layers[i, o] for o in outs) for i in ins),
        fingerprint=file_fingerprint,
        yardstick_us=yards_us["p10"] if yards_us else None,
    )


def _us(times: Stat | LayerTimes) -> float:
    """Files of earlier versions have the median of the quicker half alone."""
    return float(times.get("p5", times["p50"]))
