"""The page and the table of a made-up pipeline: everything is in them, and they ask for nothing else."""

import copy
import io
import re

import pytest
from report_fixture import Page, made_up, with_search
from rich.console import Console

from prerank.reports.pipeline.figures import figures
from prerank.reports.pipeline.page import write_report
from prerank.reports.pipeline.table import terminal_table
from prerank.reports.pipeline.words import finding
from prerank.reports.search.section import pictures, section

pytestmark = pytest.mark.slow  # whole pages are drawn


@pytest.fixture
def results() -> dict:
    return made_up()


def render(results: dict, tmp_path) -> tuple[str, Page]:
    html = write_report(results, tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    return html, Page(html)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> tuple[str, Page]:
    return render(made_up(), tmp_path_factory.mktemp("page"))


def printed(results: dict, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(terminal_table(results))
    return console.file.getvalue()


def test_the_page_holds_every_row_figure_and_command(results, rendered):
    html, page = rendered
    for text in (
        *("rank pairs", "What contrast is.", "40.2 to 42.4", "+13.3", "+12.0 to +14.6", "0.652", "37.7", "12.34"),
        *results["commands"],
        "A blind draw of 150",
        "sqlite:////tmp/mlflow.db",
        finding(results),
    ):
        assert text in page.words, text
    assert page.words.startswith("Pre-ranking: sim") and page.words.index("GAUC") < page.words.index(" AUC ")
    assert "0.631 0.097" in page.words  # NDCG of the exposed and of the unexposed
    alts = [attrs["aria-label"] for tag, attrs in page.attributes if tag == "svg"]
    assert len(alts) == len(figures(results)) == 5
    assert "contrast +13.3 points" in alts[0]
    assert len(set(page.ids)) == len(page.ids)
    referred = re.findall(r'(?:url\(|href=")#([^)"]+)', html)
    assert referred and set(referred) <= set(page.ids)


def test_the_page_asks_for_nothing_and_has_both_schemes(rendered):
    html, page = rendered
    assert "http:" not in html and "https:" not in html and "@import" not in html
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.attributes}
    assert "prefers-color-scheme: dark" in html
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b", drawings)  # every colour follows the scheme
    used = set(re.findall(r"var\((--[a-z-]+)\)", html))
    assert used <= set(re.findall(r"(--[a-z-]+):", html))


def test_the_same_results_give_the_same_page(results, rendered, tmp_path):
    assert render(results, tmp_path)[0] == rendered[0]


def test_names_are_text_and_neither_markup_nor_mathematics(results, tmp_path):
    bad = "<script>alert(1)</script> [red]&$x_1$"
    results["rows"][2]["name"] = results["rows"][2]["describes"] = results["logs"]["path"] = bad
    results["teacher_groups"] = {bad: 0.3}
    results["commands"] = [bad]
    html, page = render(results, tmp_path)
    assert "<script" not in html
    assert page.words.count("<script>alert(1)</script>") >= 6
    assert "[red]&$x 1$" in printed(results, width=160)


def test_a_server_of_mlflow_is_a_link_and_nothing_else_is(results, tmp_path):
    results["rows"], results["teacher_groups"] = [{"name": "base"}], {}
    results["mlflow"] = "http://127.0.0.1:5000/#/experiments/1"
    assert ("a", {"href": results["mlflow"]}) in render(results, tmp_path)[1].attributes
    results["mlflow"] = "javascript:alert(1)"
    assert "a" not in [tag for tag, _ in render(results, tmp_path)[1].attributes]


def test_optional_parts_may_be_missing(results, tmp_path):
    everything = copy.deepcopy(results)
    for missing in ("curve", "history", "ctr", "slices", "vs_base", "describes", "random_recall_at_150"):
        for entry in results["rows"]:
            entry.pop(missing, None)
        printed(results)
    render(results, tmp_path)
    for missing in ("teacher_groups", "commands", "mlflow"):
        results.pop(missing)
    results["logs"] = {"k": 150, "path": "."}
    html, page = render(results, tmp_path)
    assert figures(results) == {}
    assert "CTR" not in html and "true click" not in html and "Split by exposure" not in html
    assert "rank pairs" in page.words

    nothing = [{"name": "base"}, {"name": "contrast", "recall_at_150": None, "recall_at_150_ci": None, "vs_base": {}}]
    for rows in (nothing, [{**everything["rows"][0], "curve": None, "history": None}]):
        render({**everything, "rows": rows}, tmp_path)
        printed({**everything, "rows": rows})


def test_the_finding_names_the_arm_its_change_and_its_doubt(results):
    assert finding(results) == (
        "The strongest arm, contrast, keeps 54.5% of the teacher's top 150, the base student 41.2%: "
        "+13.3 points (95% interval +12.0 to +14.6); and 34.2% of the clicked items: "
        "+4.1 points (95% interval +3.0 to +5.0)."
    )
    results["rows"][1]["name"] = "all"
    assert finding(results).startswith("Strategies and scores together keep 41.5%")
    assert "+0.3 points (95% interval -0.4 to +1.0), which these requests cannot tell from nothing" in finding(results)
    assert finding(results).endswith("The strongest arm is contrast: +13.3 points (95% interval +12.0 to +14.6).")


def test_the_table_fits_a_terminal_of_80_characters(results):
    lines = printed(results).splitlines()
    assert max(len(line) for line in lines) <= 80
    contrast = next(line for line in lines if line.startswith("contrast"))
    assert " ".join(contrast.split()) == "contrast 54.5 ±1.1 +13.3 ±1.3 34.2 ±2.0 0.083 0.652 0.671 12.34"
    assert "…" not in "".join(lines)
    teacher = next(line for line in lines if line.startswith("teacher"))
    assert "+58.8" not in teacher  # its recall of itself is 1 whatever the base does


def test_the_finding_says_what_the_search_gains_in_what_time_and_its_doubt():
    said = finding(with_search([0.05, 0.03, 0.07]))
    assert said.startswith("Strategies and scores together keep 51.2%") and "strongest arm is contrast" in said
    assert said.endswith(
        " Searched under a budget of 525 µs a request, features and widths keep 56.2% of the teacher's top 150 in "
        "291 µs, those of strategies and scores together 51.2% in 520 µs: +5.0 points (95% interval +3.0 to +7.0)."
    )
    assert finding(with_search([0.001, -0.01, 0.012])).endswith(
        "+0.1 points (95% interval -1.0 to +1.2), which these requests cannot tell from nothing."
    )


def test_the_table_gains_the_times_in_100_characters():
    printed_ = printed(with_search([0.05, 0.03, 0.07]), width=100)
    assert max(len(line.rstrip()) for line in printed_.splitlines()) <= 100 and "…" not in printed_
    rows = {line.split()[0]: line.split() for line in printed_.splitlines() if line}
    assert rows["searched"][-3:] == ["181", "110", "291"] and rows["teacher"][-3:] == ["300", "220", "12,345"]
    assert rows["base"][-3:] == ["-", "-", "-"]


def test_the_page_shows_the_searched_network(tmp_path):
    results = with_search([0.05, 0.03, 0.07])
    html, page = render(results, tmp_path)
    for text in (
        "The searched network Features 2 of 3 Hidden widths 16 (1 of 2 layers skipped)",
        "Inference, measured against predicted +10%",
        "F1 1 3 price 3 F2 1 151 affinity 151",
        "the search adds affinity and leaves out rating",
        "predicted 181 100 281 measured 181 110 291 all, measured 300 220 520 budget – – 525",
        "0.671 0.660 to 0.680 181 110 p99 140 291",
    ):
        assert text in page.words, text
    assert {f"figure-{name}" for name in ("gates", "latency", "widths", "latency_recall")} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b", drawings)


def test_a_search_may_tell_less(tmp_path):
    """Another method has no history, or gates alone; a row may be searched without what the search was."""
    results = with_search([0.05, 0.03, 0.07])
    results["search"]["history"] = [{"epoch": 0, "train/loss": 1.0}]
    assert pictures(results) == {}
    del results["search"]
    page = render(results, tmp_path)[1]
    assert "Features 2 Hidden widths 16" in page.words and "price, affinity" in page.words
    for row in results["rows"]:
        for key in ("features", "widths", "vs_all", "fetch_us", "inference_us", "inference_p99_us", "latency_us"):
            row.pop(key, None)
    assert section(results).sources == [] and "latency_recall" not in figures(results)
    assert "Searched" not in finding(results)
