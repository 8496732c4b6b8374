"""The registry of methods: a method is one row here, one config, and its own code.

The plan, the tables, the figures and the documentation read these rows. A method takes images by a rule of ``dgs
select``: from the original images, from a pool of the user, or from images that its own stages make. The example
registers a method that takes the easiest images of its own pool.

Examples:
    >>> from dgs_lightning.runs.methods import METHODS, MadeBy, Method, Use, register
    >>> settings = {"model.init_args.dit": Use("dit"), "data.init_args.images_per_class": Use("pool_images")}
    >>> classes = {"task": "GenerationTask", "data": "RequestDataModule", "writer": "ImageWriter"}
    >>> pool = MadeBy("pools/dreams", "predict", settings=settings, **classes)
    >>> register(Method("dreams", "Dreams", "#c0ffee", rule="easy", stages=(pool,)))
    >>> METHODS.pop("dreams").images
    'pools/dreams'
"""

import re
from dataclasses import dataclass
from typing import Any

from dgs_lightning.errors import InputError
from dgs_lightning.runs.makers import (
    candidates,
    guided,
    image_pool,
    imported,
    influenced,
    inverted,
    matched,
    refined,
    stitched,
)
from dgs_lightning.runs.stages import MadeBy as MadeBy
from dgs_lightning.runs.stages import Use as Use

ORIGINALS, GIVEN = "originals", "given"
SET = "set:"  # before the name of a set of other people, in place of the key of a method
RANDOM_RULES = ("random", "ccs", "dgs", "transport")  # rules of ``dgs select`` that draw, if only among equals
FEATURE_RULES = ("kcenter", "herding", "kmeans")  # rules that compare features of images


@dataclass(frozen=True)
class Method:
    """One method of the table.

    Args:
        key: Name in experiments and paths.
        title: Name in tables and figures.
        colour: Colour in figures, ``#rrggbb``.
        rule: Rule of ``dgs select`` that takes the set from the images. None for the whole training set.
        source: Where the method was published.
        pool: Images that the rule takes from, if the method has no stages: ``originals``; ``given``, the pool of the
            user; or the key of a method whose images are used.
        stages: Stages that make the images, in order. The rule takes from the images of the last one.
        compared_with: Key of the same method without difficulty guidance; the two are compared seed by seed.
        published: Key of the method in the paper's tables; by default its own key.
        pictured: Whether the report has figures of the images of its sets.
        quoted: Whether only its published numbers are shown.
        settings: Key of the method whose settings its stages have; by default its own.
    """

    key: str
    title: str
    colour: str
    rule: str | None = None
    source: str = ""
    pool: str = ORIGINALS
    stages: tuple[MadeBy, ...] = ()
    compared_with: str | None = None
    published: str = ""
    pictured: bool = False
    quoted: bool = False
    settings: str = ""

    @property
    def images(self) -> str:
        """``originals``, ``given``, or the folder of the images that the rule takes from."""
        if self.stages:
            return self.stages[-1].name
        return self.pool if self.pool in (ORIGINALS, GIVEN) else METHODS[self.pool].images

    @property
    def maker(self) -> str:
        """Key of the method whose settings the stages have that make the images."""
        if self.stages or self.pool in (ORIGINALS, GIVEN):
            return self.settings or self.key
        return METHODS[self.pool].maker

    @property
    def made_by(self) -> tuple[MadeBy, ...]:
        """Stages that make the images: its own, or those of the method whose images it uses."""
        if self.stages or self.pool in (ORIGINALS, GIVEN):
            return self.stages
        return METHODS[self.pool].made_by

    def uses(self, name: str) -> bool:
        """Whether a stage of the method has a value of :class:`Use`."""
        return any(Use(name) in stage.settings.values() for stage in self.made_by)

    @property
    def by_chance(self) -> bool:
        """Whether chance decides which images a set has. If so, each draw of an experiment has a set of its own."""
        return self.rule in RANDOM_RULES or (bool(self.made_by) and not self.key.startswith(SET))

    @property
    def family(self) -> str:
        """Methods of one family compete in a table: they use the same images, or add a guidance to the same method."""
        return self.images if self.images in (ORIGINALS, GIVEN) else self.compared_with or self.key


def find_method(key: str) -> Method | None:
    """The method with a key; for ``set:NAME`` the row of a set of other people, which is taken as it is."""
    if not key.startswith(SET):
        return METHODS.get(key)
    name = key.removeprefix(SET)
    return Method(key, name, "#8a6fb0", "all", "a set of other people", stages=imported(name), pictured=True)


def register(method: Method) -> None:
    """Add a method to the registry, as the last row.

    Raises:
        InputError: If the key is taken or cannot be the name of a folder, or the row names an unknown method.
    """
    problem = None
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", method.key):
        problem = "a key that is not letters, digits and underscores"
    elif method.key in METHODS:
        problem = "a key that another method has"
    elif unknown := [
        key for key in (method.compared_with, method.pool) if key not in (None, ORIGINALS, GIVEN, *METHODS)
    ]:
        problem = f"the unknown method {unknown[0]}"
    if problem:
        raise InputError(f"method {method.key!r}", problem, "a new row of known methods", "Correct the row")
    METHODS[method.key] = method


def markdown_table() -> str:
    """The methods that can be run, as a table for the documentation."""
    lines = ["| method | `methods:` | images from | rule of `dgs select` | source |", "| --- | --- | --- | --- | --- |"]
    for method in METHODS.values():
        if not method.quoted:
            rule = f"`{method.rule}`" if method.rule else "all training images"
            lines.append(f"| {method.title} | `{method.key}` | `{method.images}` | {rule} | {method.source} |")
    return "\n".join(lines) + "\n"


_PAPER = "Li et al., difficulty-guided sampling"
_PLUGIN: Any = {"rule": "dgs", "source": f"{_PAPER}, on the images of another method", "pictured": True}
_TRANSPORT: Any = {"rule": "transport", "source": "this project; not in the paper", "pictured": True}
METHODS: dict[str, Method] = {
    method.key: method
    for method in (
        Method("random", "Random", "#ccd2d8", "random", "uniform draw"),
        Method("kcenter", "K-Center", "#b7bfc7", "kcenter", "Sener and Savarese, ICLR 2018"),
        Method("herding", "Herding", "#a2acb6", "herding", "Welling, ICML 2009"),
        Method("kmeans", "K-Means", "#8e99a5", "kmeans", "images nearest to k-means centres"),
        Method("ccs", "CCS", "#7a8794", "ccs", "Zheng et al., ICLR 2023"),
        Method("dgs_ori", "DGS (Ori)", "#4a5763", "dgs", _PAPER, compared_with="random", pictured=True),
        Method("ori_transport", "Transport (Ori)", "#36404a", compared_with="random", **_TRANSPORT),
        Method("dc", "DC", "#e6c7b0", "all", "Zhao et al., ICLR 2021", stages=matched("match/dc.yaml")),
        Method("dsa", "DSA", "#d6a582", "all", "Zhao and Bilen, ICML 2021", stages=matched("match/dsa.yaml")),
        Method("dm", "DM", "#c07f52", "all", "Zhao and Bilen, WACV 2023", stages=matched("match/dm.yaml")),
        Method("idc1", "IDC-1", "#97562b", "all", "Kim et al., ICML 2022", stages=matched("match/idc1.yaml")),
        Method("idc", "IDC", "#5f3213", "all", "Kim et al., ICML 2022", stages=matched("match/idc.yaml")),
        Method("d4m_quoted", "D4M (quoted, Stable Diffusion)", "#7a8794", source="Su et al., CVPR 2024", quoted=True),
        Method("dit", "DiT", "#93c8be", "first", "Peebles and Xie, ICCV 2023", stages=(image_pool("dit"),)),
        Method("dit_dgs", "DiT + DGS", "#2b8477", "dgs", _PAPER, "dit", compared_with="dit", pictured=True),
        Method("dit_transport", "DiT + transport", "#1c574e", pool="dit", compared_with="dit", **_TRANSPORT),
        Method("minimax", "Minimax", "#94bbe0", "first", "Gu et al., CVPR 2024", stages=(image_pool("minimax"),)),
        Method(
            "minimax_dgs", "Minimax + DGS", "#1f5a92", "dgs", _PAPER, "minimax", compared_with="minimax", pictured=True
        ),
        Method(
            "minimax_transport", "Minimax + transport", "#153d63", pool="minimax", compared_with="minimax", **_TRANSPORT
        ),
        Method("pool", "Pool", "#d9c9a8", "first", "a pool of the user's", GIVEN),
        Method("pool_dgs", "Pool + DGS", "#9a7a34", "dgs", _PAPER, GIVEN, compared_with="pool", pictured=True),
        Method("pool_transport", "Pool + transport", "#665022", pool=GIVEN, compared_with="pool", **_TRANSPORT),
        Method(
            "mgd3",
            "MGD3",
            "#d7a0c0",
            "all",
            "Chan-Santiago et al., ICML 2025",
            stages=guided("ModeGuidance", {}),
            pictured=True,
        ),
        Method(
            "mgd3_dgs",
            "MGD3 + DGS",
            "#6d3456",
            stages=guided("ModeGuidance", {}, pool=True),
            compared_with="mgd3",
            settings="mgd3",
            **_PLUGIN,
        ),
        Method("mgd3_transport", "MGD3 + transport", "#4a2239", pool="mgd3_dgs", compared_with="mgd3", **_TRANSPORT),
        Method(
            "dag",
            "DAG",
            "#9b4a7a",
            "all",
            _PAPER,
            stages=guided("DifficultyAwareGuidance", {"scores": Use("original_scores")}, ("smoothing", "intervals")),
            compared_with="mgd3",
            pictured=True,
        ),
        Method(
            "d4m",
            "D4M (ours, DiT)",
            "#b98f5a",
            "all",
            "Su et al., CVPR 2024, with a DiT in place of Stable Diffusion",
            stages=guided("PrototypeStart", {}, own=("strength",)),
            pictured=True,
        ),
        Method(
            "d4m_dgs",
            "D4M (ours, DiT) + DGS",
            "#77552a",
            stages=guided("PrototypeStart", {}, own=("strength",), pool=True),
            compared_with="d4m",
            settings="d4m",
            **_PLUGIN,
        ),
        Method(
            "d4m_transport",
            "D4M (ours, DiT) + transport",
            "#5a3f1d",
            pool="d4m_dgs",
            compared_with="d4m",
            **_TRANSPORT,
        ),
        Method("d3hr", "D3HR", "#7fb5c4", "all", "ICML 2025", stages=inverted(image_pool("guided")), pictured=True),
        Method(
            "d3hr_dgs",
            "D3HR + DGS",
            "#2f6675",
            stages=inverted(image_pool("guided"), several=True),
            compared_with="d3hr",
            settings="d3hr",
            **_PLUGIN,
        ),
        Method(
            "cao2_pool",
            "CaO2 candidates",
            "#a9c27f",
            "first",
            "Wang et al., ICCV 2025",
            stages=(candidates(image_pool("dit")),),
            settings="cao2",
        ),
        Method(
            "cao2_select",
            "CaO2 selection",
            "#5f7f33",
            "right_confident",
            "Wang et al., ICCV 2025: the first of its two stages",
            "cao2_pool",
            compared_with="cao2_pool",
            pictured=True,
        ),
        Method(
            "cao2",
            "CaO2",
            "#4b6a22",
            "all",
            "Wang et al., ICCV 2025: both stages",
            stages=refined(image_pool("dit")),
            compared_with="cao2_pool",
            pictured=True,
        ),
        Method("cao2_dgs", "CaO2 candidates + DGS", "#37501b", pool="cao2_pool", compared_with="cao2_pool", **_PLUGIN),
        Method(
            "cao2_transport",
            "CaO2 candidates + transport",
            "#223212",
            pool="cao2_pool",
            compared_with="cao2_pool",
            **_TRANSPORT,
        ),
        Method("rded", "RDED", "#d98c7a", "all", "Sun et al., CVPR 2024", stages=stitched("easy"), pictured=True),
        Method(
            "rded_dgs",
            "RDED crops + DGS",
            "#9c4635",
            "all",
            "this project; not in a paper",
            stages=stitched("dgs"),
            compared_with="rded",
            pictured=True,
            settings="rded",
        ),
        Method(
            "igd",
            "IGD",
            "#a58fd0",
            "all",
            "Chen et al., ICLR 2025",
            stages=influenced(image_pool("guided"), "ipc"),
            pictured=True,
        ),
        Method(
            "igd_dgs",
            "IGD + DGS",
            "#64489c",
            stages=influenced(image_pool("guided"), "pool_images"),
            compared_with="igd",
            settings="igd",
            **_PLUGIN,
        ),
        Method("full", "Full dataset", "#22303c", source="all training images"),
    )
}
"""The methods by key, in the order of the tables."""
