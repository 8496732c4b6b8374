"""One HTML page that needs no other file: tables, figures, costs, and a gallery of the distilled images."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from dgs_lightning.data.classes import in_natural_order
from dgs_lightning.data.images import load_image
from dgs_lightning.reporting.folder import RunFolder
from dgs_lightning.reporting.names import show
from dgs_lightning.reporting.overview import overview
from dgs_lightning.reporting.pictures import spread
from dgs_lightning.reporting.style import DIFFICULTY_RAMP
from dgs_lightning.reporting.tables import Table

GALLERY, CLASSES = 3000, 100  # most images in a page's gallery, and most classes
WHOLE, THUMBNAIL = 64, 96  # pixels: images up to the first size stay as they are, larger ones shrink to the second
LARGE = 400_000  # bytes: a larger figure becomes a JPEG


class RunReport(NamedTuple):
    """A run, the content of its ``summary.json``, and the caption and PNG file of each figure."""

    run: RunFolder
    summary: Mapping[str, Any]
    figures: Sequence[tuple[str, Path]]


def build_page(reports: Sequence[RunReport], tables: Sequence[Table]) -> str:
    """HTML of a page on some runs, with tables over all of them, and without references to other files or hosts."""
    runs = [
        {
            "name": report.run.name,
            "texts": overview(report.run, report.summary),
            "figures": [(caption, _figure_address(path)) for caption, path in report.figures],
        }
        for report in reports
    ]
    gallery = _gallery([report.run for report in reports])
    sections = {
        "Results": True,
        "Tables": bool(tables),
        "Figures": any(report.figures for report in reports),
        "Cost": any(report.run.costs for report in reports),
        "Gallery": bool(gallery["sets"]),
    }
    leads = dict.fromkeys(f"{show('dataset', report.run.dataset)}, seed {report.run.seed}." for report in reports)
    if kept := ", ".join(report.run.name for report in reports if not report.run.has_pictures):
        note = f"The records of {kept} have no images, so this page has no figures of images and no gallery."
        leads[note] = None
    loader = PackageLoader("dgs_lightning", "reporting")
    page = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html")
    return page.render(
        title=", ".join(report.run.title for report in reports),
        lead=" ".join(leads),
        sections=[name for name, filled in sections.items() if filled],
        runs=runs,
        tables=tables,
        gallery=gallery,
    )


def _gallery(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """Data of the gallery: sets, classes, and images as [set, class, difficulty, file name, address]."""
    sets = [(run, name) for run in runs if run.has_pictures for name in run.distilled_by_ipc]
    found = [run.images_by_label(str(name)) for run, name in sets]
    labels = spread(in_natural_order({label for images in found for label in images}), CLASSES)
    each = max(1, GALLERY // max(1, len(sets) * len(labels)))
    shown, images, sizes = [], [], [0]
    for position, ((run, distilled), by_label) in enumerate(zip(sets, found, strict=True)):
        chosen = [(k, *image) for k, label in enumerate(labels) for image in spread(by_label.get(label, []), each)]
        for k, path, difficulty in chosen:
            address, size = _thumbnail(path)
            sizes.append(size)
            images.append([position, k, difficulty, f"{path.parent.name}/{path.name}", address])
        name = run.show(distilled.row, distilled.ipc) + (f" ({run.name})" if len(runs) > 1 else "")
        total = sum(map(len, by_label.values()))
        shown.append({"name": name, "shown": len(chosen), "total": total, "intervals": run.intervals})
    readable = [next((run.readable(label) for run in runs if run.readable(label) != label), label) for label in labels]
    pixels, ramp = max(sizes) <= WHOLE, [list(color) for color in DIFFICULTY_RAMP]
    return {"sets": shown, "classes": readable, "images": images, "pixels": pixels, "ramp": ramp}


def _figure_address(path: Path) -> str:
    """Data address of a figure: the PNG itself, or a JPEG of it if it is large, as figures of photographs are."""
    content = path.read_bytes()
    return _address(content, "png") if len(content) <= LARGE else _encode(load_image(path), "jpeg", quality=88)


def _thumbnail(path: Path) -> tuple[str, int]:
    """Data address of an image, and the longer side of the image in pixels."""
    image = load_image(path)
    size = max(image.size)
    if size <= WHOLE:
        return _encode(image, "png", optimize=True), size
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return _encode(image, "jpeg", quality=82), size


def _encode(image: Image.Image, kind: str, **options: object) -> str:
    out = io.BytesIO()
    image.save(out, kind.upper(), **options)
    return _address(out.getvalue(), kind)


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
