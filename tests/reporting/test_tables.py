import csv
import io
import itertools

import pytest

from dgs_lightning.reporting.formats import to_csv, to_latex, to_markdown
from dgs_lightning.reporting.published import Score, Setting
from dgs_lightning.reporting.tables import Table, build_tables


def on_imagewoof(**methods: float) -> dict[Setting, Score]:
    return {Setting("imagewoof", "resnet_ap10", method, 10): Score(mean, 0.5) for method, mean in methods.items()}


def only(tables: list[Table]) -> Table:
    assert len(tables) == 1
    return tables[0]


def test_table_1_shows_the_paper_beside_ours_and_the_difference() -> None:
    table = only(build_tables(on_imagewoof(dit=33.0, dit_dgs=36.04), [1]))
    assert table.headings == (
        *("IPC", "Ratio", "Network", "Random", "K-Center", "DGS (Ori)"),
        *("DiT", "DiT + DGS", "Minimax", "Minimax + DGS", "Full dataset"),
    )
    dit = table.rows[0][1][3]
    assert (dit.own_text, dit.paper_text) == ("33.0 ± 0.5", "(34.4, -1.4)")
    assert next(cell.paper_text for cell in table.rows[0][1] if not cell.ours) == "(28.4)"


def test_beside_another_set_up_the_papers_number_stands_without_a_difference_unless_asked() -> None:
    results = on_imagewoof(dit=33.0)
    table = only(build_tables(results, [1], differences="the set-up is another one"))
    assert next(cell.paper_text for cell in table.rows[0][1] if cell.ours) == "(34.4)"
    assert "the paper's mean; the set-up is another one." in table.note
    table = only(build_tables(results, [1], differences="the set-up is another one", compared=True))
    assert next(cell.paper_text for cell in table.rows[0][1] if cell.ours) == "(34.4, -1.4)"
    assert "our mean minus the paper's; the set-up is another one." in table.note


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    assert only(build_tables(on_imagewoof(dit=34.38), [1])).rows[0][1][3].paper_text == "(34.4, +0.0)"


def test_bold_is_the_best_of_each_comparison_and_ties_share_it() -> None:
    results = on_imagewoof(random=30.0, kcenter=20.0, dgs_ori=30.02, dit=35.0, dit_dgs=34.0, minimax=40.0, full=90.0)
    cells = only(build_tables(results, [1])).rows[0][1]
    assert {cell.setting.method for cell in cells if cell.best} == {"random", "dgs_ori", "dit"}


def test_without_published_numbers_only_table_1_is_made_and_only_ours_are_in_it() -> None:
    results = {Setting("digits", "convnet3", m, 10): Score(80.0, None) for m in ("random", "dit", "dag")}
    table = only(build_tables(results))
    assert (table.number, table.headings) == (1, ("IPC", "Network", "Random", "DiT", "DAG"))
    assert table.rows[0][0] == ("10", "ConvNet-3")


def test_published_methods_of_table_2_stand_beside_ours_at_our_ipc_alone() -> None:
    table = only(build_tables({Setting("imagewoof", "resnet18", "ccs", 20): Score(33.0, 0.1)}, [2]))
    assert table.headings == ("Method", "IPC 20")
    assert [labels[0] for labels, _ in table.rows] == [
        *(
            "Random",
            "K-Center",
            "Herding",
            "CCS",
            "DM",
            "IDC-1",
            "D4M (quoted, Stable Diffusion)",
            "DiT",
            "Minimax",
            "Minimax + DGS",
        ),
    ]


def test_table_3_has_a_row_for_each_data_set_and_ipc() -> None:
    results = {
        Setting(data, "resnet_ap10", "random", ipc): Score(50.0, 1.0)
        for data in ("imagenette", "imageidc")
        for ipc in (50, 10)
    }
    table = only([t for t in build_tables(results) if t.number == 3])
    assert [labels for labels, _ in table.rows] == [
        *(("ImageNette", "10"), ("ImageNette", "50"), ("ImageIDC", "10"), ("ImageIDC", "50")),
    ]


@pytest.mark.parametrize(
    ("number", "method", "variant", "labels"),
    [
        (4, "minimax_dgs", "hill", ["Hill", "Ground", "Slope", "Cliff", "Scale"]),
        (5, "minimax_dgs", "pool6", ["2 x IPC", "3 x IPC", "4 x IPC", "5 x IPC", "6 x IPC"]),
        (7, "dag", "stop40", ["MGD3", "DAG", "DAG", "DAG", "DAG"]),
    ],
)
def test_a_result_without_variant_stands_in_the_row_of_the_default(
    number: int, method: str, variant: str, labels: list[str]
) -> None:
    data = "imagenette" if number == 7 else "imagewoof"
    plain = Setting(data, "resnet_ap10", method, 10)
    results = {plain: Score(40.0, 0.1), plain._replace(variant=variant): Score(41.0, 0.1)}
    results[plain._replace(method="random")] = Score(10.0, 0.1)
    table = only([t for t in build_tables(results) if t.number == number])
    assert [row_labels[0] for row_labels, _ in table.rows] == labels
    ours = {cell.setting.variant: cell.ours for _, cells in table.rows for cell in cells if cell.ours}
    assert ours == {
        {4: "scale", 5: "pool5", 7: "stop25"}[number]: Score(40.0, 0.1),
        variant: Score(41.0, 0.1),
    }


def test_table_6_compares_the_methods_on_each_validation_set() -> None:
    plain = Setting("imagenette", "resnet_ap10", "minimax", 10)
    results = {
        plain: Score(59.0, 0.1),
        plain._replace(method="minimax_dgs"): Score(60.0, 0.1),
        plain._replace(variant="val_easy"): Score(63.0, 0.1),
        plain._replace(method="minimax_dgs", variant="val_easy"): Score(62.0, 0.1),
    }
    table = only([t for t in build_tables(results) if t.number == 6])
    best = {(labels[0], labels[1]) for labels, cells in table.rows if cells[0].best}
    assert best == {("Ori", "Minimax + DGS"), ("Easy", "Minimax")}
    assert len(table.rows) == 8


def test_table_1_has_the_share_of_the_images_that_a_set_keeps_beside_the_papers() -> None:
    cells = itertools.product(("dit", "full"), (10, 50))
    woof = {Setting("imagewoof", "resnet_ap10", method, ipc): Score(30, 1) for method, ipc in cells}
    table = only(build_tables(woof, [1], ratios={("imagewoof", 50): 500 / 12454}))
    assert table.headings[:3] == ("IPC", "Ratio", "Network")
    assert [labels for labels, _ in table.rows] == [
        ("10", "(0.8 %)", "ResNetAP-10"),
        ("50", "4.0 % (3.8 %)", "ResNetAP-10"),
    ]
    assert "Ratio: share of the training images that a set keeps, and the paper's in brackets." in table.note
    assert "| 50 | 4.0 % (3.8 %) | ResNetAP-10 |" in to_markdown(table)
    assert r"50 & 4.0 \% (3.8 \%) & ResNetAP-10" in to_latex(table)
    lines = {(line["method"], line["ipc"]): line for line in csv.DictReader(io.StringIO(to_csv(table)))}
    assert float(lines["dit", "50"]["ratio"]) == pytest.approx(500 / 12454)
    assert (lines["dit", "10"]["ratio"], lines["dit", "10"]["published_ratio"]) == ("", "0.008")
    assert (lines["full", "50"]["ratio"], lines["full", "50"]["published_ratio"]) == ("", "")
    [other] = build_tables({Setting("digits", "convnet3", "dit", 10): Score(80, 1)}, ratios={("digits", 10): 0.07})
    assert other.rows[0][0] == ("10", "7.0 %", "ConvNet-3")
    assert "paper" not in other.note


def test_table_7_says_that_stop_50_guides_no_step_and_that_the_papers_numbers_do_not_fit() -> None:
    plain = Setting("imagenette", "resnet_ap10", "dag", 10, "stop50")
    results = {plain: Score(59.0, 0.1), plain._replace(variant="stop50-below"): Score(61.0, 0.1)}
    table = only(build_tables(results, [7]))
    assert "Stop 50 then guides no step" in table.note
    assert "61.4 against 59.1" in table.note
    assert [labels for labels, cells in table.rows if cells[0].ours] == [("DAG", "stop 50"), ("DAG", "stop 50, below")]
