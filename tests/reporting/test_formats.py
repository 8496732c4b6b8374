import csv
import io

import pytest

from dgs_lightning.reporting.formats import to_csv, to_latex, to_markdown
from dgs_lightning.reporting.published import Score, Setting
from dgs_lightning.reporting.tables import Table, build_tables


@pytest.fixture
def table() -> Table:
    scores = {"dit": Score(100 / 3, None), "dit_dgs": Score(36.04, 0.52), "odd_method": Score(1.0, 0.5)}
    results = {Setting("imagewoof", "resnet_ap10", method, 10): score for method, score in scores.items()}
    return build_tables(results, [1])[0]


def test_markdown_shows_ours_the_papers_and_the_difference(table: Table) -> None:
    lines = to_markdown(table).splitlines()
    assert lines[0].startswith("**Table 1. Methods and networks, ImageWoof.** Top-1 accuracy in %")
    assert lines[-1] == (
        "| 10 | (0.8 %) | ResNetAP-10 | (28.4) | (22.1) | (28.8) | 33.3 (34.4, -1.1) | **36.0 ± 0.5** (35.1, +0.9) "
        "| (35.7) | (37.8) | (87.5) | 1.0 ± 0.5 |"
    )


def test_csv_has_a_line_for_each_cell_with_full_precision(table: Table) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    dit = next(line for line in lines if line["method"] == "dit")
    assert len(lines) == 9
    assert float(dit["mean"]) == 100 / 3
    assert float(dit["difference"]) == 100 / 3 - 34.4
    assert (dit["std"], dit["published_mean"], dit["published_std"], dit["best"]) == ("", "34.4", "0.6", "0")


def test_names_from_outside_stay_text_in_latex() -> None:
    results = {Setting("mine^{2}", "convnet3", "a\\b~c", 10): Score(1.0, 0.5)}
    text = to_latex(build_tables(results, [1])[0])
    assert r"a\textbackslash{}b\textasciitilde{}c" in text
    assert r"mine\textasciicircum{}\{2\}." in text


def test_latex_is_balanced_and_escapes_what_latex_reads(table: Table) -> None:
    text = to_latex(table)
    assert text.count("{") == text.count("}")
    assert r"odd\_method" in text
    assert r"accuracy in \%" in text
    assert r"\textbf{36.0 $\pm$ 0.5} {\scriptsize (35.1, $+$0.9)}" in text
    assert {line.count("&") for line in text.splitlines() if line.endswith(r"\\")} == {11}
