"""The results of a made-up pipeline, and a page as a test reads it."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}


def row(name: str, recall: float, hit: float, **more) -> dict:
    return {
        "name": name,
        "describes": f"What {name} is.",
        "recall_at_150": recall,
        "recall_at_150_ci": [recall - 0.01, recall + 0.012],
        "hit_rate_at_150": hit,
        "hit_rate_at_150_ci": [hit - 0.02, hit + 0.02],
        "random_recall_at_150": 0.15,
        "ndcg_at_10": 0.083,
        "ndcg_at_10_ci": [0.08, 0.09],
        "auc": 0.671,
        "auc_ci": [0.66, 0.68],
        "gauc": 0.652,
        "gauc_ci": None,
        "requests": 2000,
        "ctr": 0.1234,
        "ctr_ci": [0.12, 0.13],
        "slices": {
            "exposed": {"recall_at_150": 0.377, "auc": 0.6, "ndcg_at_10": 0.631},
            "unexposed": {"recall_at_150": 0.355, "auc": None, "ndcg_at_10": 0.097, "hit_rate_at_150": None},
        },
        "curve": {"k": [10, 50, 150, 500], "recall": [0.1, 0.2, recall, 0.9], "hit_rate": [0.1, 0.2, hit, 0.8]},
        "history": [{"epoch": e, "train/loss": 1.0, "val/recall_at_150": recall * (e + 1) / 3} for e in range(3)],
        **more,
    }


def made_up() -> dict:
    return {
        "logs": {"path": "runs/sim", "requests": 2000, "k": 150, "m": 150, "has_truth": True, "space": "candidates"},
        "rows": [
            row("base", 0.412, 0.301),
            row(
                "rank_pairs",
                0.415,
                0.311,
                vs_base={"recall_at_150": [0.003, -0.004, 0.01], "hit_rate_at_150": [0.01, -0.01, 0.03]},
            ),
            row(
                "contrast",
                0.545,
                0.342,
                vs_base={"recall_at_150": [0.133, 0.12, 0.146], "hit_rate_at_150": [0.041, 0.03, 0.05]},
            ),
            row("teacher", 1.0, 0.43, history=[], vs_base={"recall_at_150": [0.588, 0.58, 0.59]}),
        ],
        "teacher_groups": {"teacher": 0.4, "item": 0.2, "cross": 0.3},
        "commands": ["python -m workflows.make_logs --out a", "python -m workflows.pipeline --logs a"],
        "mlflow": "sqlite:////tmp/mlflow.db",
    }


def with_search(vs_all: list[float]) -> dict:
    """A row `searched` beside `all`, the times of both, and the history of the search."""
    results = made_up()
    times = {"fetch_us": 300.0, "inference_us": 220.4, "inference_p99_us": 310.0, "latency_us": 520.4}
    quick = {"fetch_us": 181.0, "inference_us": 110.0, "inference_p99_us": 140.0, "latency_us": 291.0}
    change = {"recall_at_150": [0.1, 0.09, 0.11]}
    all_ = row("all", 0.512, 0.35, vs_base=change, features=["price", "rating"], widths=[64, 32], **times)
    found = row(
        "searched", 0.562, 0.36, vs_base=change, vs_all={"recall_at_150": vs_all},
        features=["price", "affinity"], widths=[16, 0], **quick,
    )  # fmt: skip
    results["rows"][-1:] = [all_, found, row("teacher", 1.0, 0.43, **{**times, "latency_us": 12_345.0})]
    gates = [{"price": 0.8, "rating": 0.8 - 0.3 * epoch, "affinity": 0.9} for epoch in range(3)]
    results["search"] = {
        "history": [
            {
                "epoch": epoch, "gates": gates[epoch], "widths": [[0.2 + 0.1 * epoch, 0.8 - 0.1 * epoch]] * 2,
                "fetch_us": 200.0, "inference_us": 150.0 - epoch, "latency_us": 350.0 - epoch,
                "gate_entropy": 0.6, "width_entropy": 0.5,
            }
            for epoch in range(3)
        ],
        "arch": {
            "features": ["price", "affinity"], "widths": [16, 0],
            "fetch_us": 181.0, "inference_us": 100.0, "latency_us": 281.0, "budget_us": 525.0,
        },
        "widths": [16, 0],
        "features": [
            {"name": "price", "source": "F1", "fetch_us": 3.0},
            {"name": "rating", "source": "F1", "fetch_us": 2.0},
            {"name": "affinity", "source": "F2", "fetch_us": 151.0},
        ],
    }  # fmt: skip
    return results


class Page(HTMLParser):
    """Fails on a tag that closes nothing; keeps what a test asks about."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())
