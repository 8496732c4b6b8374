import io
import json
import shutil
from pathlib import Path

from rich.console import Console

from dgs_lightning.data.cards import write_card
from dgs_lightning.reporting.folder import read_run
from dgs_lightning.reporting.overview import costs_grid, overview, overview_markdown, results_grid
from dgs_lightning.reporting.records import Cost
from dgs_lightning.reporting.summary import summarize
from dgs_lightning.reporting.terminal import to_terminal


def test_costs_of_repeated_stages_are_added_up() -> None:
    costs = [
        Cost("evaluation/a/n/seed0", 2.0, None, "cpu"),
        Cost("evaluation/a/n/seed1", 3.0, None, "H200"),
        Cost("pools/dit", 4.0, 100, None),
        Cost("pools/minimax", 0.0, 100, None),
    ]
    assert costs_grid(costs).rows == [
        ("evaluation, 2 runs", "5.0", "", "", "H200, cpu"),
        ("pools/dit", "4.0", "100", "25.0", ""),
        ("pools/minimax", "0.0", "100", "", ""),
    ]


def test_markdown_tells_rows_comparison_legibility_and_what_is_unfinished(run_folder: Path) -> None:
    (run_folder / "stages" / "finetune.yaml").write_text("{}")
    run = read_run(run_folder)
    text = overview_markdown(overview(run, summarize(run)))
    assert text.startswith("# Three digits\n\n**Not finished:** finetune.")
    assert "| DiT + DGS (Ground) | 4 | ConvNet-3 | 1 | 2 | 67.0 ± 1.4 | 66.0 ± 1.4 | 53.3 to 78.7 |" in text
    assert "| DiT + DGS | DiT | 4 | ConvNet-3 | +10.0 | +10.0 to +10.0 | 2 of 2 |" in text
    assert "Pool images whose class an independent classifier recognises: DiT " in text


def test_many_unfinished_stages_are_counted(run_folder: Path) -> None:
    for number in range(30):
        (run_folder / "stages" / f"stage{number:02d}.yaml").write_text("{}")
    run = read_run(run_folder)
    text = overview_markdown(overview(run, summarize(run)))
    assert "\n\n**Not finished:** 30 stages (stage00, stage01, stage02, stage03, stage04, ...).\n" in text


def test_the_note_says_what_the_refinement_of_latents_did(run_folder: Path) -> None:
    run = read_run(run_folder)
    name = run.distilled_by_ipc[0]
    assert "refinement moved" not in results_grid(summarize(run), run).note
    measures = {"class_loss_before": 0.25, "class_loss_after": 0.26125, "moved_rms": 0.0334}
    write_card(run_folder / "refined" / str(name), {"measures": measures})
    note = results_grid(summarize(run), read_run(run_folder)).note
    assert f"{run.show(name.row, name.ipc)}: refinement moved the latents by 0.033 (root mean square)." in note
    assert "went from 0.2500 to 0.2612; lower is better." in note


def test_the_note_says_what_is_compared_by_the_rows_that_compare_features(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert "selected by comparing" not in results_grid(summarize(run), run).note
    report = run_folder / "distilled" / "random-ipc4" / "selection.json"
    report.write_text(json.dumps({**json.loads(report.read_text()), "features": "32 x 32 thumbnails"}))
    note = results_grid(summarize(run), read_run(run_folder)).note
    assert "Random: selected by comparing 32 x 32 thumbnails." in note


def test_the_terminal_table_fits_80_columns_with_whole_numbers(finished_run: Path) -> None:
    run = read_run(finished_run)
    out = io.StringIO()
    Console(file=out, width=80).print(to_terminal(results_grid(summarize(run), run)))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert out.getvalue().count("± 1.4") == 10
    assert "…" not in out.getvalue()


def test_one_training_a_row_wins_nothing_and_leaves_no_column_empty(run_folder: Path) -> None:
    for training in run_folder.glob("evaluation/*/convnet3/seed6"):
        shutil.rmtree(training)
    run = read_run(run_folder)
    shown = overview(run, summarize(run))
    assert list(shown.comparisons.headings) == ["With", "Without", "IPC", "Network", "Difference"]
    for grid in (shown.results, shown.comparisons, shown.costs):
        assert all(any(column) for column in zip(*grid.rows, strict=True))


def test_a_run_without_trainings_has_no_columns_of_trainings(run_folder: Path) -> None:
    shutil.rmtree(run_folder / "evaluation")
    run, out = read_run(run_folder), io.StringIO()
    grid = results_grid(summarize(run), run)
    assert list(grid.headings) == ["Method", "IPC", "Difficulty", "Distance", "Smoothed distance"]
    Console(file=out, width=80).print(to_terminal(grid))
    assert out.getvalue().splitlines()[0].rstrip() == "IPC: 4"
