"""The figures that a run has data for, one after another."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from dgs_lightning.data.images import load_image
from dgs_lightning.reporting import figures, pictures
from dgs_lightning.reporting.names import METHODS, show_network, show_row, split_variant, table_order
from dgs_lightning.reporting.pictures import ScoredImage
from dgs_lightning.reporting.published import first_published
from dgs_lightning.reporting.runs import ORIGINAL, Run
from dgs_lightning.reporting.summary import Row, summary_rows
from dgs_lightning.reporting.trajectories import Trajectories, class_latents, read_trajectories
from dgs_lightning.selection.distribution import Floats, histogram, largest_remainder

CLASSES, IMAGES = 10, 50  # most classes in a figure of images, and most images of one class


@dataclass(frozen=True, slots=True)
class Plate:
    """A figure of the album.

    Attributes:
        slug: Name of its files.
        caption: What it shows.
        draw: Makes the figure.
    """

    slug: str
    caption: str
    draw: Callable[[], Figure]


def album(run: Run) -> Iterator[Plate]:
    """The figures that a run has data for; those that it has none for are left out.

    Args:
        run: The run, finished or not.

    Yields:
        Figures in the order of the story: accuracies, difficulties, image pools, distilled sets.
    """
    yield from _accuracies(run)
    if run.difficulties(ORIGINAL):
        yield from _difficulties(run)
    for pool in run.pools:
        yield from _of_pool(run, pool)
    yield from _guidance(run)
    for row, ipc in distilled_sets(run):
        if split_variant(row, run.variants)[0].endswith(("dgs", "dgs_ori", "mgd3", "dag")):
            yield from _of_set(run, f"{row}-ipc{ipc}", f"{show_row(row, run.variants)}, IPC {ipc}")


def distilled_sets(run: Run) -> list[tuple[str, int]]:
    """Row and IPC of the distilled sets, in the order of the tables."""
    sets = [(row, ipc) for row, ipc in run.distilled if ipc is not None]
    return sorted(sets, key=lambda part: (part[1], table_order(METHODS, split_variant(part[0], run.variants)[0]), part))


# ---- of the whole run ------------------------------------------------------------------------------------------------


def _accuracies(run: Run) -> Iterator[Plate]:
    rows = [row for row in summary_rows(run) if row.network is not None]
    panels = {
        f"{show_network(network or '')}, IPC {ipc}": [
            _bar(run, row, ipc) for row in rows if row.network == network and row.ipc in (ipc, None)
        ]
        for ipc, network in dict.fromkeys((row.ipc, row.network) for row in rows)
        if ipc is not None
    }
    if panels:
        caption = (
            "Best accuracy on the validation set: mean over the repeats (bar), sample standard deviation (line), and "
            "each repeat (circle)."
        )
        if any(bar.paper is not None for bars in panels.values() for bar in bars):
            difference = f"; not like for like: {run.unlike_the_paper}" if run.unlike_the_paper else ""
            caption += f" The diamond is the paper's mean{difference}."
        yield Plate("accuracy", caption, lambda: figures.accuracy_bars(panels))


def _bar(run: Run, row: Row, ipc: int) -> figures.Bar:
    setting = run.setting(row.method, ipc, row.network or "")
    values = [
        100 * e.accuracy_best
        for e in run.evaluations
        if (e.row, e.ipc, e.network) == (row.method, row.ipc, row.network)
    ]
    paper = first_published(setting)
    return figures.Bar(setting.method, show_row(row.method, run.variants), values, paper.mean if paper else None)


def _difficulties(run: Run) -> Iterator[Plate]:
    """Distributions of every set against the original's, and the sampling distributions."""
    original = _together(run, ORIGINAL)
    ipcs = list(dict.fromkeys(ipc for _, ipc in distilled_sets(run)))
    for ipc in ipcs:
        sets = {
            show_row(row, run.variants): (split_variant(row, run.variants)[0], _together(run, f"{row}-ipc{ipc}"))
            for row, ipc_of_row in distilled_sets(run)
            if ipc_of_row == ipc and run.difficulties(f"{row}-ipc{ipc}")
        }
        if sets:
            caption = f"Share of images in each difficulty interval at IPC {ipc}; the outline is the original images'."
            draw = partial(figures.difficulty_by_set, original, sets, run.intervals)
            yield Plate(f"difficulty-ipc{ipc}", caption, draw)
    if ipcs:
        counts = [histogram(scores, run.intervals) for scores in run.difficulties(ORIGINAL).values()]
        scale = {ipc: np.mean([largest_remainder(count, ipc) for count in counts], axis=0) for ipc in ipcs}
        caption = (
            "Pre-defined sampling distributions (Fig. 8), and beside them the one scaled from the original images "
            "without smoothing, mean over the classes."
        )
        yield Plate("distributions", caption, lambda: figures.predefined_distributions(ipcs, scale, run.intervals))


def _guidance(run: Run) -> Iterator[Plate]:
    """Paths of guided images beside those of the same model without guidance."""
    free = str(run.settings.get("guided", "dit"))
    for ipc in dict.fromkeys(ipc for _, ipc in distilled_sets(run)):
        names = {free: free} | {f"{row}-ipc{ipc}": row for row, other in distilled_sets(run) if other == ipc}
        found = {
            row: paths
            for name, row in names.items()
            if (paths := read_trajectories(run.image_folder(name))) is not None
        }
        label = next((paths.label for paths in found.values() if paths.centers is not None), None)
        originals = None if label is None else class_latents(run.folder / "latents", label)
        if label is None or originals is None:
            continue
        plane = PCA(2).fit(originals)
        sets = [_in_plane(plane, run, row, paths) for row, paths in found.items() if paths.label == label]
        caption = (
            f"Predicted images of class {run.readable(label)} over the denoising steps, from circle to dot, on the two "
            "principal components of the original latents (grey); crosses are the centres they are guided to."
        )
        draw = partial(figures.guided_trajectories, plane.transform(originals), sets)
        yield Plate(f"trajectories-ipc{ipc}", caption, draw)


def _in_plane(plane: PCA, run: Run, row: str, paths: Trajectories) -> figures.Paths:
    return figures.Paths(
        show_row(row, run.variants),
        split_variant(row, run.variants)[0],
        np.stack([plane.transform(path) for path in paths.predictions]),
        None if paths.centers is None else plane.transform(paths.centers),
    )


def _together(run: Run, name: str) -> Floats:
    return np.concatenate(list(run.difficulties(name).values()))


# ---- of one pool or set ----------------------------------------------------------------------------------------------


def _of_pool(run: Run, pool: str) -> Iterator[Plate]:
    original, scores = run.difficulties(ORIGINAL), run.difficulties(pool)
    names = {label: run.readable(label) for label in scores}
    if original.keys() & scores.keys():
        caption = (
            f"Kernel density estimates of the difficulties of the original images and of the {pool} pool (Fig. 2)."
        )
        title = f"{METHODS.get(pool, pool)} pool"
        yield Plate(f"density-{pool}", caption, lambda: figures.difficulty_densities(original, scores, title, names))
    for label, images in _images(run, pool, list(scores)[:1]).items():
        caption = f"Images of the {pool} pool, class {names[label]}, from easy to hard; the number is the difficulty."
        title = f"{METHODS.get(pool, pool)} pool, {names[label]}"
        yield Plate(f"grid-{pool}", caption, partial(pictures.difficulty_grid, images, title))


def _of_set(run: Run, name: str, title: str) -> Iterator[Plate]:
    labels = list(run.difficulties(name))
    samples = {run.readable(label): images for label, images in _images(run, name, labels[:CLASSES], 10).items()}
    if samples:
        caption = f"{title}: images of each class, from easy to hard (Fig. 6)."
        only = {label: [scored.image for scored in images] for label, images in samples.items()}
        yield Plate(f"samples-{name}", caption, lambda: pictures.class_samples(only, title))
    examples = _examples(run, labels)
    originals, distilled = _images(run, ORIGINAL, examples, 10), _images(run, name, examples, 10)
    pairs = {run.readable(label): (originals[label], distilled[label]) for label in originals if label in distilled}
    if pairs:
        caption = f"{title}: original and distilled images of the easiest and the hardest class, with scores (Fig. 5)."
        yield Plate(f"scores-{name}", caption, lambda: pictures.original_against_distilled(pairs))
    accounts = run.selection(name)
    stages = {run.readable(label): _stages(accounts[label]) for label in examples if "raw" in accounts.get(label, {})}
    if stages:
        caption = (
            f"{title}: difficulties of two classes along the sampling, before and after smoothing (Fig. 7). The images "
            "were taken by the smoothed distribution; the upper row shows where they lie without smoothing."
        )
        yield Plate(f"smoothing-{name}", caption, lambda: figures.sampling_histograms(stages))


def _stages(account: Mapping[str, Any]) -> tuple[figures.SamplingStages, figures.SamplingStages]:
    """Histograms before and after smoothing of a class in ``selection.json``."""

    def stages(when: Mapping[str, Any]) -> figures.SamplingStages:
        target = np.array(when["target"])
        centers = (np.arange(len(target)) + 0.5) / len(target)
        histograms = {
            name: figures.Histogram(np.array(when[name]["counts"]), when[name]["mean"])
            for name in ("original", "pool", "distilled")
        }
        return figures.SamplingStages(
            target=figures.Histogram(target, float(target @ centers / target.sum())), **histograms
        )

    return stages(account["raw"]), stages(account["smoothed"])


def _examples(run: Run, labels: Sequence[str]) -> list[str]:
    """The classes whose original images are the easiest and the hardest on average; any two where none is scored."""
    original = run.difficulties(ORIGINAL)
    scored = sorted((label for label in labels if label in original), key=lambda label: original[label].mean())
    ordered = scored or list(labels)
    return list(dict.fromkeys([*ordered[:1], *ordered[-1:]]))


def _images(run: Run, name: str, labels: Sequence[str], count: int = IMAGES) -> dict[str, list[ScoredImage]]:
    """Scored images of some classes from easy to hard, evenly spaced where there are more than ``count``."""
    by_label = run.images_by_label(name)
    found = {label: [(path, score) for path, score in by_label.get(label, []) if score is not None] for label in labels}
    return {
        label: [ScoredImage(load_image(path), score) for path, score in pictures.spread(images, count)]
        for label, images in found.items()
        if images
    }
