"""The figures that a run has data for, one after another."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from dgs_lightning.data.images import load_image
from dgs_lightning.reporting import figures, pictures
from dgs_lightning.reporting.folder import RunFolder
from dgs_lightning.reporting.names import pool_name, show
from dgs_lightning.reporting.pictures import ScoredImage
from dgs_lightning.reporting.published import Setting, first_published
from dgs_lightning.reporting.records import Evaluation
from dgs_lightning.reporting.studies import ReportFigure, study_figures
from dgs_lightning.reporting.summary import row_accuracies, row_score, summary_rows, trainings
from dgs_lightning.reporting.trajectories import Trajectories, class_latents, read_trajectories
from dgs_lightning.runs.layout import LATENTS, ORIGINAL, SetName
from dgs_lightning.runs.methods import find_method
from dgs_lightning.selection.distribution import histogram, largest_remainder

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

PAPERS_CLASSES = ("n02086240", "n02089973")  # Shih-Tzu and English Foxhound, of Fig. 7
CLASSES, IMAGES, COLUMNS = 10, 50, 10  # most classes in a figure of images, images of one class, and images in a row
ACROSS = 8  # images of a method in the figure of one class


def figures_of(
    run: RunFolder, differences: str = "", rows: Sequence[Mapping[str, Any]] | None = None
) -> Iterator[ReportFigure]:
    """The figures that a run has data for: accuracies, difficulties, image pools and distilled sets, in this order.

    Args:
        run: The run.
        differences: How the set-up differs from the paper's, as a part of a sentence beside the paper's numbers.
        rows: The rows of its ``summary.json``, if they are known already.
    """
    yield from _accuracies(run, differences)
    yield from study_figures(run, summary_rows(run) if rows is None else rows)
    yield from _classes(run)
    if run.difficulties(ORIGINAL):
        yield from _difficulties(run)
    for pool in run.pools:
        yield from _of_pool(run, pool)
    yield from _guidance(run)
    for name in run.distilled_by_ipc:
        method = find_method(run.method(name.row))
        if method and method.pictured:
            yield from _of_set(run, name)


def _accuracies(run: RunFolder, differences: str) -> Iterator[ReportFigure]:
    groups = {key: group for key, group in trainings(run).items() if group}
    panels = {
        f"{show('network', network)}, IPC {ipc}": [
            _bar(run, run.setting(row, ipc, network or ""), row, group)
            for (row, own_ipc, own_network), group in groups.items()
            if own_network == network and own_ipc in (ipc, None)
        ]
        for ipc, network in dict.fromkeys((ipc, network) for _, ipc, network in groups)
        if ipc is not None
    }
    if panels:
        start = figures.accuracy_range(panels)[0]
        caption = (
            f"A {'square' if start else 'bar'} shows the best accuracy of a method on the validation set, averaged "
            "over its trainings. The line is the sample standard deviation over the draws, or over the trainings if a "
            "row has one set. A circle is one training."
        )
        if start:
            caption += f" The axis begins at {start:.0f} %, not at 0."
        if any(bar.paper is not None for bars in panels.values() for bar in bars):
            caption += f" The diamond is the paper's mean{'; ' * bool(differences)}{differences}."
        yield ReportFigure("accuracy", caption, lambda: figures.accuracy_bars(panels))


def _bar(run: RunFolder, setting: Setting, row: str, evaluations: Sequence[Evaluation]) -> figures.Bar:
    paper = first_published(setting)
    values = [100 * evaluation.accuracy_best for evaluation in evaluations]
    score = row_score(row_accuracies(evaluations), "best")
    assert score is not None  # there is a training
    return figures.Bar(setting.method, run.show(row), values, score, paper.mean if paper else None)


def _classes(run: RunFolder) -> Iterator[ReportFigure]:
    """One class, the hardest: original images, and those of the set of each method."""
    for ipc, names in _sets_by_ipc(run).items():
        label = next(reversed(example_classes(run, [*run.difficulties(str(names[0]))])[0]), None)
        if label is None or ipc == 1:
            continue
        sets = {"Original": ORIGINAL, **{run.show(n.row): str(n) for n in names if n.row not in run.variants}}
        found = {title: _images(run, name, [label], ACROSS) for title, name in sets.items()}
        rows = {title: images[label] for title, images in found.items() if label in images}
        if len(rows) > 1 and "Original" in rows:
            caption = (
                f"Original images of class {run.readable(label)}, and those of each method's set at IPC {ipc}, from "
                "easy to hard. The number under an image is its difficulty."
            )
            draw = partial(pictures.one_class, rows, f"Class {run.readable(label)}, {ipc} images a class")
            yield ReportFigure(f"class-ipc{ipc}", caption, draw)


def _difficulties(run: RunFolder) -> Iterator[ReportFigure]:
    """The difficulties of every set beside those of the original images, and the sampling distributions."""
    original = list(run.difficulties(ORIGINAL).values())
    ipcs = _sets_by_ipc(run)
    for ipc, names in ipcs.items():
        sets = {
            run.show(name.row): (run.method(name.row), list(scores.values()))
            for name in names
            if (scores := run.difficulties(str(name)))
        }
        if sets:
            caption = (
                f"The bars show the share of a set's images in each difficulty interval at IPC {ipc}. The outline "
                "shows that of the original images, averaged over the classes."
            )
            draw = partial(figures.difficulty_by_set, original, sets, run.intervals)
            yield ReportFigure(f"difficulty-ipc{ipc}", caption, draw)
    if ipcs:
        counts = [histogram(scores, run.intervals) for scores in original]
        scale = {ipc: np.mean([largest_remainder(count, ipc) for count in counts], axis=0) for ipc in ipcs}
        caption = (
            "The first panel shows the sampling distribution that is scaled from the original images without "
            "smoothing, averaged over the classes. The others show the predefined sampling distributions (Fig. 8)."
        )
        draw = partial(figures.predefined_distributions, list(ipcs), scale, run.intervals)
        yield ReportFigure("distributions", caption, draw)


def _guidance(run: RunFolder) -> Iterator[ReportFigure]:
    """Trajectories of guided images beside those of the same model without guidance."""
    unguided = str(run.settings.get("guided", "dit"))
    for ipc, names in _sets_by_ipc(run).items():
        sets = [(unguided, unguided), *((name.row, str(name)) for name in names)]
        recorded = [(row, read_trajectories(run.image_folder(name))) for row, name in sets]
        found = {row: trajectories for row, trajectories in recorded if trajectories is not None}
        label = next((trajectories.label for trajectories in found.values() if trajectories.centers is not None), None)
        originals = None if label is None else class_latents(run.folder / LATENTS, label)
        if label is None or originals is None:
            continue
        from sklearn.decomposition import PCA  # only here: it takes a second to import

        plane = PCA(2).fit(originals)
        paths = [_in_plane(plane, run, row, each) for row, each in found.items() if each.label == label]
        caption = (
            f"A line shows the predicted image of class {run.readable(label)} over the denoising steps, from circle to "
            "dot, in the plane of the two principal components of the original latents (grey). A cross is a cluster "
            "centre that guides an image."
        )
        draw = partial(figures.guided_trajectories, plane.transform(originals), paths)
        yield ReportFigure(f"trajectories-ipc{ipc}", caption, draw)


def _in_plane(plane: "PCA", run: RunFolder, row: str, trajectories: Trajectories) -> figures.Paths:
    points = np.stack([plane.transform(path) for path in trajectories.predictions])
    centers = None if trajectories.centers is None else plane.transform(trajectories.centers)
    return figures.Paths(run.show(row), run.method(row), points, centers)


def _sets_by_ipc(run: RunFolder) -> dict[int, list[SetName]]:
    return {ipc: list(sets) for ipc, sets in groupby(run.distilled_by_ipc, lambda name: name.ipc) if ipc is not None}


def _of_pool(run: RunFolder, pool: str) -> Iterator[ReportFigure]:
    original, scores = run.difficulties(ORIGINAL), run.difficulties(pool)
    names = {label: run.readable(label) for label in scores}
    title = pool_name(pool)
    if original.keys() & scores.keys():
        shown = f"the original images and of the {title} (Fig. 2)"
        caption = f"The curves are kernel density estimates of the difficulties of {shown}."
        draw = partial(figures.difficulty_densities, original, scores, title, names)
        yield ReportFigure(f"density-{pool}", caption, draw)
    for label, images in _images(run, pool, list(scores)[:1], IMAGES).items():
        shown = f"Images of class {names[label]} from the {title}, from easy to hard"
        caption = f"{shown}. The number under an image is its difficulty."
        draw = partial(pictures.difficulty_grid, images, f"{title}, {names[label]}")
        yield ReportFigure(f"grid-{pool}", caption, draw)


def _of_set(run: RunFolder, distilled_set: SetName) -> Iterator[ReportFigure]:
    name, title = str(distilled_set), run.show(distilled_set.row, distilled_set.ipc)
    labels = list(run.difficulties(name))
    samples = {
        run.readable(label): [scored.image for scored in images]
        for label, images in _images(run, name, labels[:CLASSES]).items()
    }
    if samples:
        caption = f"{title}: images of each class, from easy to hard (Fig. 6)."
        yield ReportFigure(f"samples-{name}", caption, lambda: pictures.class_samples(samples, title))
    examples, which = example_classes(run, labels)
    originals, distilled = _images(run, ORIGINAL, examples), _images(run, name, examples)
    pairs = {run.readable(label): (originals[label], distilled[label]) for label in originals if label in distilled}
    if pairs:
        caption = (
            f"{title}: original and distilled images of {which}, from easy to hard (Fig. 5). The number under an image "
            "is its difficulty."
        )
        yield ReportFigure(f"scores-{name}", caption, lambda: pictures.original_against_distilled(pairs))
    selection = run.selection(distilled_set)
    accounts = selection.get("classes", {}) if selection.get("smoothing") else {}
    stages = {
        run.readable(label): (_stages(accounts[label]["unsmoothed"]), _stages(accounts[label]["smoothed"]))
        for label in examples
        if {"unsmoothed", "smoothed"} <= accounts.get(label, {}).keys()
    }
    if stages:
        caption = (
            f"{title}: difficulties of {which} at each stage of difficulty-guided sampling (Fig. 7). The lower row has "
            "smoothed difficulties, and the images that they select are the set. The upper row shows what would be "
            "selected without smoothing."
        )
        yield ReportFigure(f"smoothing-{name}", caption, lambda: figures.sampling_histograms(stages))


def _stages(account: Mapping[str, Any]) -> figures.SamplingStages:
    """Histograms of a class in ``selection.json``, before or after smoothing."""
    target = np.array(account["target"])
    centers = (np.arange(len(target)) + 0.5) / len(target)
    histograms = {
        name: figures.Histogram(np.array(account[name]["counts"]), account[name]["mean"])
        for name in ("original", "pool", "distilled")
    }
    mean = float(target @ centers / target.sum())
    return figures.SamplingStages(target=figures.Histogram(target, mean), **histograms)


def example_classes(run: RunFolder, labels: Sequence[str]) -> tuple[list[str], str]:
    """The two classes of Figures 5 and 7, and words for them: those of the paper where the data has them.

    Otherwise, they are those whose original images are the easiest and the hardest on average; any two if none is
    scored.
    """
    if set(PAPERS_CLASSES) <= set(labels):
        return list(PAPERS_CLASSES), "the paper's two classes"
    original = run.difficulties(ORIGINAL)
    scored = sorted((label for label in labels if label in original), key=lambda label: original[label].mean())
    ordered = scored or list(labels)
    return list(dict.fromkeys([*ordered[:1], *ordered[-1:]])), "the easiest and the hardest class"


def _images(run: RunFolder, name: str, labels: Sequence[str], count: int = COLUMNS) -> dict[str, list[ScoredImage]]:
    """At most ``count`` scored images of each label, evenly spaced from easy to hard."""
    by_label = run.images_by_label(name)
    found = {label: [(path, score) for path, score in by_label.get(label, []) if score is not None] for label in labels}
    return {
        label: [ScoredImage(load_image(path), score) for path, score in pictures.spread(images, count)]
        for label, images in found.items()
        if images
    }
