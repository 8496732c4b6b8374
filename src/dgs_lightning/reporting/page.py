"""One HTML page that needs nothing beside it: tables, figures, costs, and a gallery of the distilled images."""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from dgs_lightning.data.images import load_image
from dgs_lightning.reporting.album import distilled_sets
from dgs_lightning.reporting.names import show_dataset, show_row
from dgs_lightning.reporting.pictures import spread
from dgs_lightning.reporting.runs import Run
from dgs_lightning.reporting.style import DIFFICULTY_RAMP
from dgs_lightning.reporting.summary import (
    COMPARISON_HEADINGS,
    COST_HEADINGS,
    HEADINGS,
    NOTE,
    comparison_cells,
    cost_rows,
    paired_comparisons,
    show_summary_row,
)
from dgs_lightning.reporting.tables import Table

GALLERY, CLASSES = 3000, 100  # most images in a page's gallery, and most classes that they are of
WHOLE, THUMBNAIL = 64, 96  # images up to the first size stay as they are, larger ones become thumbnails of the second

LARGE = 400_000  # bytes


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a page shows of one run.

    Attributes:
        run: The run.
        summary: Its summary, as ``summary.json`` has it.
        figures: Caption and PNG file of each figure.
    """

    run: Run
    summary: Mapping[str, Any]
    figures: Sequence[tuple[str, Path]]


def build_page(reports: Sequence[RunReport], tables: Sequence[Table]) -> str:
    """The page's HTML.

    Args:
        reports: The runs.
        tables: Tables over all of them.

    Returns:
        A document without references to other files or hosts.
    """
    title = ", ".join(str(report.run.settings.get("title") or report.run.name) for report in reports)
    several = len(reports) > 1
    sections = {
        "Results": [_results(report, several) for report in reports],
        "Tables": [_table(table) for table in tables],
        "Figures": [_figures(report, several) for report in reports],
        "Cost": [_costs(report, several) for report in reports],
    }
    body = "\n".join(_section(name, parts) for name, parts in sections.items() if any(parts))
    gallery = _gallery([report.run for report in reports])
    links = [name for name, parts in sections.items() if any(parts)] + ["Gallery"] * bool(gallery["sets"])
    template = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        lead=escape(
            ". ".join(dict.fromkeys(f"{show_dataset(r.run.dataset)}, seed {r.run.seed}" for r in reports)) + "."
        ),
        navigation="".join(f'<a href="#{name.lower()}">{name}</a>' for name in links),
        body=body,
        data=json.dumps(gallery, separators=(",", ":")).replace("<", "\\u003c"),
    )


def _section(name: str, parts: Iterable[str]) -> str:
    slug = name.lower()
    return f'<section id="{slug}"><h2>{name}</h2>{"".join(parts)}</section>'


def _name(report: RunReport, several: bool) -> str:
    return f"<h3>{escape(report.run.name)}</h3>" if several else ""


def _grid(headings: Sequence[str], rows: Iterable[Sequence[str]], texts: int) -> str:
    """A table of cells that are HTML already; the first columns are texts, the others numbers."""

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = ["" if column < texts else ' class="number"' for column in range(len(cells))]
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    head = line("th", [escape(heading) for heading in headings])
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _escaped(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    return [[escape(cell) for cell in row] for row in rows]


def _results(report: RunReport, several: bool) -> str:
    run, summary = report.run, report.summary
    parts = [_name(report, several)]
    if run.unfinished:
        parts.append(f'<p class="warning"><b>Not finished:</b> {escape(", ".join(run.unfinished))}.</p>')
    parts.append(_grid(HEADINGS, _escaped(show_summary_row(row, run.variants) for row in summary["rows"]), 3))
    parts.append(f'<p class="note">{escape(NOTE)}</p>')
    if comparisons := paired_comparisons(run):
        parts.append("<h3>With difficulty guidance against without</h3>")
        cells = _escaped(comparison_cells(*item) for item in comparisons.items())
        parts.append(_grid(COMPARISON_HEADINGS, cells, 4))
        parts.append('<p class="note">Last accuracy on the same seeds, in percentage points; paired t-test.</p>')
    if summary["pool_legible"]:
        shares = ", ".join(f"{pool} {share:.1%}" for pool, share in summary["pool_legible"].items())
        parts.append(f"<p>Legible, by an independent classifier trained on the original images: {escape(shares)}.</p>")
    return "".join(parts)


def _table(table: Table) -> str:
    texts = len(table.headings) - len(table.rows[0][1])
    rows = []
    for labels, cells in table.rows:
        texts_of_cells = [
            (f"<b>{cell.own_text}</b>" if cell.best else cell.own_text)
            + (f"<small>{cell.paper_text}</small>" if cell.paper else "")
            for cell in cells
        ]
        rows.append([*map(escape, labels), *texts_of_cells])
    title = f"<h3>Table {table.number}. {escape(table.title)}</h3>"
    return f'{title}{_grid(table.headings, rows, texts)}<p class="note">{escape(table.note)}</p>'


def _figures(report: RunReport, several: bool) -> str:
    plates = [
        f'<figure><button class="plate" type="button" aria-label="Enlarge"><img alt="{escape(caption)}" '
        f'src="{_picture(path)}"></button><figcaption>{escape(caption)}</figcaption></figure>'
        for caption, path in report.figures
    ]
    return f'{_name(report, several)}<div class="plates">{"".join(plates)}</div>' if plates else ""


def _costs(report: RunReport, several: bool) -> str:
    rows = _escaped(cost_rows(report.run.costs))
    return _name(report, several) + _grid(COST_HEADINGS, rows, 1) if rows else ""


def _gallery(runs: Sequence[Run]) -> dict[str, Any]:
    """Data of the gallery: sets, classes, and images as [set, class, difficulty, file name, address]."""
    sets = [(run, row, ipc) for run in runs for row, ipc in distilled_sets(run)]
    found = [run.images_by_label(f"{row}-ipc{ipc}") for run, row, ipc in sets]
    labels = spread(sorted({label for images in found for label in images}), CLASSES)
    each = max(1, GALLERY // max(1, len(sets) * len(labels)))
    names, images, sizes = [], [], []
    for position, ((run, row, ipc), by_label) in enumerate(zip(sets, found, strict=True)):
        chosen = [(k, *image) for k, label in enumerate(labels) for image in spread(by_label.get(label, []), each)]
        for k, path, difficulty in chosen:
            address, size = _thumbnail(path)
            sizes.append(size)
            images.append([position, k, difficulty, f"{path.parent.name}/{path.name}", address])
        name = f"{show_row(row, run.variants)}, IPC {ipc}" + (f" ({run.name})" if len(runs) > 1 else "")
        total = sum(map(len, by_label.values()))
        names.append({"name": name, "shown": len(chosen), "total": total, "intervals": run.intervals})
    readable = [next((run.readable(label) for run in runs if run.readable(label) != label), label) for label in labels]
    return {
        "sets": names,
        "classes": readable,
        "images": images,
        "pixels": max(sizes, default=0) <= WHOLE,
        "ramp": [list(color) for color in DIFFICULTY_RAMP],
    }


def _picture(path: Path) -> str:
    """Address of a figure: the PNG itself, or where it holds photographs and is large a JPEG of it."""
    content = path.read_bytes()
    if len(content) <= LARGE:
        return _address(content, "png")
    out = io.BytesIO()
    load_image(path).save(out, "JPEG", quality=88)
    return _address(out.getvalue(), "jpeg")


def _thumbnail(path: Path) -> tuple[str, int]:
    """Address of an image, and the longer side of the image in pixels."""
    image = load_image(path)
    size, out = max(image.size), io.BytesIO()
    if size <= WHOLE:
        image.save(out, "PNG", optimize=True)
        return _address(out.getvalue(), "png"), size
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(out, "JPEG", quality=82)
    return _address(out.getvalue(), "jpeg"), size


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
