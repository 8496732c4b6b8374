"""``dgs report``: tables, figures and a page from the folders of runs."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from dgs_lightning.bounds import Between
from dgs_lightning.commands.differences import differences_from_paper, note_on
from dgs_lightning.errors import InputError, listed_with_number
from dgs_lightning.files import write_json, write_text
from dgs_lightning.reporting.album import figures_of
from dgs_lightning.reporting.folder import RunFolder
from dgs_lightning.reporting.formats import grid_latex, grid_markdown, scores_csv, to_csv, to_latex, to_markdown
from dgs_lightning.reporting.kept import KeptRun, keep_records, open_run
from dgs_lightning.reporting.overview import overview, overview_markdown, scores_grid
from dgs_lightning.reporting.page import RunReport, build_page
from dgs_lightning.reporting.published import Accuracy, Score, Setting
from dgs_lightning.reporting.style import save
from dgs_lightning.reporting.summary import kept_share, row_score, summarize
from dgs_lightning.reporting.tables import FORMS, build_tables
from dgs_lightning.runs import layout
from dgs_lightning.runs.ddranking import ScoreName, check_scores

_log = logging.getLogger(__name__)


def report(
    runs: list[str],
    output: str | None = None,
    tables: list[int] | None = None,
    accuracy: Accuracy = "best",
    differences: bool | None = None,
    scores: list[ScoreName] | None = None,
    lrs_weight: Annotated[float | None, Between(0, 1)] = None,
    ars_weight: Annotated[float | None, Between(0, 1)] = None,
    keep: str | None = None,
) -> Path:
    """Write tables, figures and one HTML page from the folders of runs, finished or not.

    Each run gets ``summary.json``, ``summary.md`` and ``figures/`` (PNG and PDF). All runs together get ``tables/``
    (Markdown, CSV and LaTeX) and ``index.html``. The tables have the form of the paper's Tables 1 to 7 and show its
    numbers, too. A report of an unfinished run names the unfinished stages. The same runs always give the same files.

    Args:
        runs: Folders that ``dgs run`` wrote, or with records that ``keep`` left of such a run.
        output: Folder of the report, whose page is returned. By default the folder of a single run, or ``report``
            beside the first of several runs. Each of several runs has a folder with its name there.
        tables: Numbers of the paper's tables to write. By default Table 1, and each other table that has published
            numbers for the runs or varies the same field as the runs.
        accuracy: Accuracy in the tables: the best during a training, as the paper publishes it, or the last.
        differences: Whether tables show our mean minus the paper's beside the paper's mean. By default they do where
            the runs have the paper's set-up. Where the set-up is another one, a note names what is not the paper's,
            and the difference is not shown unless this is true: it would compare two set-ups, not two results.
        scores: Scores of DD-Ranking to show, ``lrs`` or ``ars``; by default those of each experiment.
        lrs_weight: Weight w of LRS; by default that of each experiment, or 0.5.
        ars_weight: Weight gamma of ARS, likewise.
        keep: Folder for what a report reads of the run, without images and without paths of this machine, in one small
            file ``records.json``. A report of this folder has the same tables, and the figures that show no images.
            Each of several runs has a folder with its name there.

    Raises:
        InputError: If a folder is no run or has a broken file, two runs have one name, the paper has no such table, or
            scores are asked for where no network was trained.
    """
    check_combination({"tables": tables})
    given = {"scores": scores, "lrs_weight": lrs_weight, "ars_weight": ars_weight}
    changes = {name: value for name, value in given.items() if value is not None}
    opened = [_open(run, changes) for run in runs]
    folder = _folder(opened, output)
    reports, others = [], []
    for run in opened:
        found = run.records["differences"] if isinstance(run, KeptRun) else differences_from_paper(run)
        other = note_on(run, found)
        own = "" if len(opened) == 1 else run.name
        if keep is not None:
            keep_records(run, found, Path(keep, own))
        part = folder / own
        if missing := listed_with_number(run.unfinished, "stage"):
            _log.warning("%s: not finished: %s; the report shows the other stages", run.folder, missing)
        summary = summarize(run)
        write_json(part / layout.SUMMARY, summary)
        write_text(part / layout.SUMMARY_TEXT, overview_markdown(overview(run, summary)))
        drawn = figures_of(run, other, summary["rows"])
        figures = [(text, save(draw(), part / layout.FIGURES / slug)[0]) for slug, text, draw in drawn]
        reports.append(RunReport(run, summary, figures))
        others += [other] if other else []
    cells, measured = _scores(reports, accuracy)
    known = {(run.dataset, s.ipc): kept_share(run, s.ipc) for run in opened for s in cells if s.dataset == run.dataset}
    ratios = {place: share for place, share in known.items() if share is not None}
    built = build_tables(cells, tables, accuracy, measured, "; ".join(others), differences, ratios)
    texts = {
        f"{table.slug}.{ending}": write(table)
        for table in built
        for ending, write in {"md": to_markdown, "csv": to_csv, "tex": to_latex}.items()
    }
    for name, text in (texts | _tables_of_scores(reports)).items():
        write_text(folder / layout.TABLES / name, text)
    write_text(folder / layout.PAGE, build_page(reports, built))
    return folder / layout.PAGE


def _open(folder: str, changes: Mapping[str, Any]) -> RunFolder:
    """The run in a folder, with some settings changed."""
    run = open_run(folder, changes)
    networks = run.settings.get("networks")
    trained = [e.training.network for e in run.all_evaluations] if networks is None else networks
    check_scores(run.settings.get("scores") or [], trained, run.variants, f"{run.folder}: ")
    return run


def _tables_of_scores(reports: Sequence[RunReport]) -> dict[str, str]:
    """The files with the scores of the runs that ask for any, by their names."""
    texts = {}
    for run, summary, _ in reports:
        if (grid := scores_grid(summary, run)).rows:
            slug = f"scores-{run.name}"
            texts[f"{slug}.md"] = grid_markdown(grid)
            texts[f"{slug}.csv"] = scores_csv(summary["rows"])
            texts[f"{slug}.tex"] = grid_latex(grid, slug)
    return texts


def check_combination(settings: Mapping[str, Any]) -> None:
    """Check that the paper has the tables of the given numbers."""
    if unknown := sorted(set(settings["tables"] or []) - set(FORMS)):
        raise InputError.setting("tables", unknown, f"numbers from {list(FORMS)}")


def _folder(runs: Sequence[RunFolder], output: str | None) -> Path:
    """The folder of the report."""
    if not runs:
        raise InputError.unset("runs", "at least one folder of a run", "[runs/NAME]")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise InputError.setting("runs", f"names {', '.join(names)}", "names that differ", "Rename a run's folder")
    return Path(output or (runs[0].folder if len(runs) == 1 else runs[0].folder.parent / layout.REPORT))


def _scores(reports: Sequence[RunReport], which: Accuracy) -> tuple[dict[Setting, Score], str]:
    """Accuracies of all runs in percent, keyed like the paper's tables, and what they average as text."""
    scores: dict[Setting, Score] = {}
    measured = dict[str, None]()
    for run, summary, _ in reports:
        rows = [(row, score) for row in summary["rows"] if (score := row_score(row, which))]
        ipcs = sorted({row["ipc"] for row, _ in rows} - {None})
        for row, score in rows:
            several = row["sets"] > 1
            measured[f"{row['sets']} draws" if several else f"{row['trainings']} trainings on one set"] = None
            for ipc in ipcs if row["ipc"] is None else [row["ipc"]]:  # the full data set has a cell at every IPC
                setting = run.setting(row["method"], ipc, row["network"])
                if setting in scores:
                    _log.warning("%s: an earlier run has %s, too; the tables show this run's", run.name, setting)
                scores[setting] = score
    return scores, " or ".join(measured)
