"""Draws the diagrams of docs/images: ``python docs/tools/diagrams.py`` writes them anew.

They are SVG with text as text. Each has a background of its own and follows the reader's light or dark setting.
"""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

import numpy as np

from dgs_lightning.selection.distribution import histogram
from dgs_lightning.selection.sampler import select_class
from dgs_lightning.selection.smoothing import smoothing_settings

FOLDER = Path(__file__).parents[1] / "images"
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', monospace"
COLOURS = {  # class: property, colour on a light background, colour on a dark one
    "ground": ("fill", "#ffffff", "#12181f"),
    "ink": ("fill", "#22303c", "#e6ebf0"),
    "muted": ("fill", "#5d6a77", "#9fb0bf"),
    "line": ("stroke", "#5d6a77", "#9fb0bf"),
    "box": ("fill", "#ffffff", "#1d2731"),
    "edge": ("stroke", "#b9c3cc", "#465564"),
    "blue": ("fill", "#e6eff8", "#182a3d"),
    "yellow": ("fill", "#faf0d9", "#33291a"),
    "green": ("fill", "#e5f1e8", "#182b20"),
    "original": ("fill", "#5f6d7a", "#9aa8b5"),
    "pool": ("fill", "#7fabd0", "#6fa3cf"),
    "target": ("fill", "#d68a34", "#e5a457"),
    "guide": ("stroke", "#d68a34", "#e5a457"),
    "distilled": ("fill", "#1f5a92", "#4f97d8"),
}
STYLE = f"""
text {{ font-family: {SANS}; font-size: 12px }}
.title {{ font-size: 14px; font-weight: 600 }}
.code {{ font-family: {MONO}; font-size: 11px }}
.line, .guide {{ fill: none; stroke-width: 1.5 }}
.dashed {{ stroke-dasharray: 5 4 }}
"""


class Drawing:
    """A diagram. Lengths are in pixels, and y grows downwards.

    Args:
        width: Width.
        height: Height.
        title: What it shows, for readers who cannot see it.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size, self.title = (width, height), title
        self.parts: list[str] = []
        self.rectangle(0, 0, width, height, "ground", radius=10)

    def rectangle(self, x: float, y: float, width: float, height: float, kind: str, radius: float = 0) -> None:
        """A filled rectangle."""
        rounded = f' rx="{radius:g}"' if radius else ""
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"{rounded} class="{kind}"/>')

    def text(self, x: float, y: float, text: str, kind: str = "ink", anchor: str = "middle") -> None:
        """A line of text on the baseline ``y``."""
        placed = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.parts.append(f'<text x="{x:g}" y="{y:g}"{placed} class="{kind}">{escape(text)}</text>')

    def panel(self, x: float, y: float, width: float, height: float, kind: str, title: str) -> None:
        """A coloured area with a title."""
        self.rectangle(x, y, width, height, kind, radius=8)
        self.text(x + 14, y + 22, title, "ink title", "start")

    def box(self, x: float, y: float, width: float, title: str, *lines: str, code: Sequence[str] = ()) -> None:
        """A box with a title, lines of text, and lines of code."""
        height = 30 + 16 * (len(lines) + len(code))
        self.rectangle(x, y, width, height, "box edge", radius=6)
        rows = [(title, "ink title"), *((line, "muted") for line in lines), *((line, "ink code") for line in code)]
        for number, (line, kind) in enumerate(rows):
            self.text(x + width / 2, y + 21 + 16 * number + (2 if number else 0), line, kind)

    def path(self, *points: tuple[float, float], kind: str = "line", head: bool = True) -> None:
        """A line through points, with the head of an arrow at its end."""
        steps = " ".join(f"{x:g},{y:g}" for x, y in points)
        end = f' marker-end="url(#{kind.split()[0]}-head)"' if head else ""
        self.parts.append(f'<polyline points="{steps}" class="{kind}"{end}/>')

    def squares(self, corners: Iterable[tuple[float, float]], side: float, opacity: float) -> None:
        """Squares with their upper left corners at these points, as one path."""
        steps = "".join(f"M{x:g},{y:g}h{side:g}v{side:g}h-{side:g}z" for x, y in corners)
        self.parts.append(f'<path d="{steps}" class="ink" fill-opacity="{opacity:g}"/>')

    def cross(self, x: float, y: float, size: float = 5) -> None:
        """A cross, for a cluster centre."""
        steps = f"M{x - size:g},{y - size:g}l{2 * size:g},{2 * size:g}m0,-{2 * size:g}l-{2 * size:g},{2 * size:g}"
        self.parts.append(f'<path d="{steps}" class="guide" style="stroke-width: 3"/>')

    def bars(self, x: float, y: float, counts: np.ndarray, kind: str) -> None:
        """A histogram over the difficulty from 0 to 1 with its upper left corner at ``(x, y)``."""
        width, height = 190, 96
        step = width / len(counts)
        for k in np.flatnonzero(counts):
            tall = round(height * counts[k] / counts.max(), 1)
            self.rectangle(round(x + k * step + 1, 1), y + height - tall, step - 2, tall, kind)
        self.path((x, y + height + 0.5), (x + width, y + height + 0.5), head=False)
        for place, label in ((0, "0"), (width / 2, "difficulty"), (width, "1")):
            self.text(x + place, y + height + 16, label, "muted")

    def svg(self) -> str:
        """The file."""
        rules = ["".join(f".{kind} {{ {value[0]}: {value[k]} }}\n" for kind, value in COLOURS.items()) for k in (1, 2)]
        dark = f"@media (prefers-color-scheme: dark) {{\n{rules[1]}}}\n"
        heads = "".join(
            f'<marker id="{kind}-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0,0L8,4L0,8z" class="{fill}"/></marker>'
            for kind, fill in (("line", "muted"), ("guide", "target"))
        )
        width, height = self.size
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
        parts = "\n".join(self.parts)
        return (
            f"{head}\n<title>{escape(self.title)}</title>\n<style>{STYLE}{rules[0]}{dark}</style>\n"
            f"<defs>{heads}</defs>\n{parts}\n</svg>\n"
        )


def pipeline() -> Drawing:
    """The stages of a run, after Fig. 1 and Fig. 3 of the paper."""
    drawing = Drawing(960, 460, "The stages of a run, from real images to a distilled set and its evaluation")
    columns, middle, wide = (214, 398, 582, 766), 490, 146
    for y, kind, title in (
        (16, "blue", "Generate an image pool"),
        (162, "yellow", "Select by difficulty"),
        (308, "green", "Measure what the set is worth"),
    ):
        drawing.panel(196, y, 748, 136, kind, title)
    stages = (
        (18, 49, "Originals", "training images", "dgs prepare", "data/train"),
        (columns[0], 49, "Encode", "images to latents", "dgs predict", "latents/"),
        (columns[1], 49, "Pre-train", "or a published DiT", "dgs fit", "pretrain/"),
        (columns[2], 49, "Fine-tune", "Minimax criteria", "dgs fit", "finetune/"),
        (columns[3], 49, "Generate", "the image pool", "dgs predict", "pools/"),
        (columns[0], 195, "Score", "the originals", "dgs predict", "scores/original"),
        (middle, 195, "Select", "the distilled set", "dgs select", "distilled/"),
        (columns[3], 195, "Score", "the image pool", "dgs predict", "scores/minimax"),
        (18, 341, "Real images", "for validation", "dgs prepare", "data/val"),
        (middle, 341, "Train and test", "classifiers", "dgs fit", "evaluation/"),
        (columns[3], 341, "Report", "tables and figures", "dgs report", "index.html"),
    )
    for x, y, title, what, *code in stages:
        drawing.box(x, y, wide, title, what, code=code)
    for left, right in pairwise((18, *columns)):
        drawing.path((left + wide, 88), (right, 88))
    drawing.path((91, 127), (91, 234), (columns[0], 234))
    drawing.path((columns[0] + wide, 234), (middle, 234))
    drawing.path((columns[3], 234), (middle + wide, 234))
    drawing.path((columns[3] + wide / 2, 127), (columns[3] + wide / 2, 195))
    drawing.path((middle + wide / 2, 273), (middle + wide / 2, 341))
    drawing.path((18 + wide, 380), (middle, 380))
    drawing.path((middle + wide, 380), (columns[3], 380))
    drawing.text(425, 226, "target", "muted")
    drawing.text(701, 226, "candidates", "muted")
    drawing.text(571, 326, "IPC images a class", "muted", "start")
    return drawing


def example() -> tuple[np.ndarray, np.ndarray]:
    """Difficulties of 100 originals and of a pool of 50 images that is too easy."""
    random = np.random.default_rng(1)
    return random.beta(0.5, 1.1, 100), random.beta(0.5, 3.0, 50)


def sampling() -> Drawing:
    """Difficulty-guided sampling of one class (Algorithm 1), computed by the package from made-up difficulties."""
    original, pool = example()
    found = select_class(
        pool, original, 10, np.random.default_rng(0), distribution="scale", smoothing=smoothing_settings("paper", None)
    )
    drawing = Drawing(960, 420, "Difficulty-guided sampling of one class: histograms, smoothing, target and draw")
    drawing.panel(16, 16, 928, 186, "yellow", "Original images of the class")
    drawing.panel(16, 218, 928, 186, "blue", "Image pool of the class")
    places = (32, 268, 504, 738)
    for y, scores, smoothed, kind in (
        (68, original, found.smoothed.original, "original"),
        (270, pool, found.smoothed.pool, "pool"),
    ):
        drawing.text(places[0], y - 9, f"{len(scores)} difficulties (Eq. 6)", "muted", "start")
        drawing.bars(places[0], y, histogram(scores, 10), kind)
        drawing.path((places[0] + 200, y + 50), (places[1] - 8, y + 50))
        drawing.text(places[1], y - 9, "smoothed (Eq. 7 to 9)", "muted", "start")
        drawing.bars(places[1], y, histogram(smoothed, 10), kind)
    drawing.path((places[1] + 200, 118), (places[2] - 8, 118))
    drawing.text(places[2], 59, "scaled to 10 images", "muted", "start")
    drawing.bars(places[2], 68, found.target, "target")
    drawing.path((places[2] + 200, 118), (places[3] + 95, 118), (places[3] + 95, 246))
    drawing.text(places[3] + 87, 152, "how many images", "muted", "end")
    drawing.text(places[3] + 87, 168, "of each interval", "muted", "end")
    drawing.path((places[1] + 200, 320), (places[3] - 8, 320))
    drawing.text(places[2] + 95, 312, "draw within each interval", "muted")
    drawing.text(places[2] + 95, 338, "where an interval lacks images,", "muted")
    drawing.text(places[2] + 95, 354, "any other images take their place", "muted")
    drawing.text(places[3], 261, "the distilled set", "muted", "start")
    drawing.bars(places[3], 270, found.draw.taken + found.draw.filled, "distilled")
    return drawing


def guidance() -> Drawing:
    """Difficulty-aware guidance of one class (Algorithm 2), after Fig. 4 of the paper."""
    drawing = Drawing(960, 376, "Difficulty-aware guidance: cluster centres within intervals guide the denoising")
    drawing.panel(16, 16, 330, 344, "yellow", "Latents of the originals of a class")
    drawing.panel(366, 16, 578, 344, "blue", "Guided denoising, one image for each centre")
    random = np.random.default_rng(3)
    bands = (("0 to 0.1", 26, 5), ("0.1 to 0.2", 14, 2), ("0.2 to 0.3", 8, 1), ("0.9 to 1", 12, 2))
    for number, (interval, images, centers) in enumerate(bands):
        y = 62 + 56 * number + (24 if number == 3 else 0)
        drawing.rectangle(108, y, 220, 46, "box edge", radius=6)
        drawing.text(98, y + 27, interval, "muted", "end")
        groups = np.arange(images) % centers
        middle = 118 + 200 * (np.arange(centers) + 0.5) / centers
        for group in groups:
            x = middle[group] + random.uniform(-1, 1) * min(24, 70 / centers)
            drawing.parts.append(
                f'<circle cx="{x:.0f}" cy="{y + random.uniform(8, 38):.0f}" r="3" class="original" fill-opacity="0.7"/>'
            )
        for x in middle:
            drawing.cross(round(x), y + 23)
    drawing.text(218, 244, "…", "muted")
    drawing.text(98, 54, "difficulty", "muted", "end")
    drawing.text(181, 322, "k-means within each interval, with as many", "muted")
    drawing.text(181, 339, "centres as the target has images there", "muted")
    frames(drawing, random)
    return drawing


def frames(drawing: Drawing, random: np.random.Generator) -> None:
    """Images on their way from noise to a digit, pulled towards a centre until the stop timestep."""
    three = np.array([[int(c) for c in row] for row in ("01110", "10001", "00001", "00110", "00001", "10001", "01110")])
    side, top = 9, 178
    lefts = [418 + 80 * k + (26 if k > 2 else 0) for k in range(6)]
    drawing.cross(520, 76, 7)
    drawing.text(536, 81, "the centre of this image", "muted", "start")
    for number, (x, index) in enumerate(zip(lefts, (49, 41, 33, 25, 12, 0), strict=True)):
        clean = (number / 5) ** 1.2
        grey = clean * 0.9 * three + (1 - clean) * random.uniform(0, 1, three.shape)
        drawing.rectangle(x - 4, top - 4, 5 * side + 8, 7 * side + 8, "box edge", radius=3)
        levels = np.round(grey * 5).astype(int)
        for level in range(1, 6):
            places = [(x + side * column, top + side * row) for row, column in np.argwhere(levels == level)]
            if places:
                drawing.squares(places, side, level / 5)
        drawing.text(x + 22.5, top + 88, f"{index}", "ink code")
        if number < 5:
            drawing.path((x + 50, top + 31), (lefts[number + 1] - 5, top + 31))
        if number < 3:
            drawing.path((520, 92), (520, 118), (x + 22.5, 142), (x + 22.5, top - 6), kind="guide")
    drawing.text(655, top + 108, "step, from noise (49) to the latent of the image (0)", "muted")
    stop = (lefts[2] + lefts[3] + 45) / 2
    drawing.path((stop, 106), (stop, top + 92), kind="line dashed", head=False)
    drawing.text(stop + 10, 118, "stop timestep 25", "ink", "start")
    drawing.text(stop + 10, 135, "no guidance from here on", "muted", "start")
    drawing.text(655, 314, "shift of a step's mean = scale · sigma · (centre - predicted latent)", "ink")
    drawing.text(655, 336, "each image is decoded and kept: the set has one image for each centre", "muted")


DIAGRAMS = {"pipeline": pipeline, "sampling": sampling, "guidance": guidance}

if __name__ == "__main__":
    for name, draw in DIAGRAMS.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
