"""What is measured: each program's cases, the tables that show their figures, and what grows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from program import Figures

Show = Callable[[Figures], str]


@dataclass(frozen=True)
class Curves:
    """What of the figures is drawn.

    Args:
        unit: Unit of both curves.
        own: Name of this project's figure.
        reference: Name of the reference's.
        factor: From the figures to the unit.
    """

    unit: str
    own: str
    reference: str
    factor: float = 1


@dataclass(frozen=True)
class Growth:
    """How a program's figures change with one of its options.

    Args:
        option: The option.
        values: What it is set to.
        others: Options that stay the same.
        curves: What is drawn of it.
    """

    option: str
    values: tuple[int, ...]
    others: str
    curves: Curves

    @property
    def name(self) -> str:
        """What grows, in words."""
        return self.option.removeprefix("--").replace("-", " ")


@dataclass(frozen=True)
class Topic:
    """What one program measures.

    Args:
        title: Title of its section.
        program: Name of its file.
        columns: The figures of its tables, by their headings.
        cases: Options by the name of the case.
        short: Options that leave very little to measure of the first case.
        growth: What is measured over a range.
    """

    title: str
    program: str
    columns: Mapping[str, Show]
    cases: Mapping[str, str]
    short: str
    growth: Growth | None = None


@dataclass(frozen=True)
class Measured:
    """A topic's figures by case, and over the values of its growth, and the machine and versions by name."""

    topic: Topic
    cases: Mapping[str, Figures]
    growth: Mapping[int, Figures] = field(default_factory=dict)
    on: Mapping[str, str] = field(default_factory=dict)


def number(value: float) -> str:
    """Three digits that count."""
    return f"{float(f'{value:.3g}'):,g}"


def figure(name: str, factor: float = 1) -> Show:
    """Shows one of the figures; a dash where an earlier form of the program did not measure it."""
    return lambda figures: number(factor * figures[name]) if name in figures else "-"


def first_of(start: str) -> Show:
    """Shows the first of the figures whose names begin so; a dash where there is none."""
    return lambda figures: next((number(value) for name, value in figures.items() if name.startswith(start)), "-")


def overhead(figures: Figures) -> str:
    """Lightning's part of a step over that without it, and in milliseconds."""
    share = figures["lightning_overhead"]
    return f"{100 * share:.1f} %, {figures['ms_per_step'] * share / (1 + share):.2f} ms"


RATES = {
    "images/s": figure("images_per_second"),
    "reference, images/s": figure("reference_images_per_second"),
    "ratio": figure("ratio"),
}
DIT_S = "--size imagewoof128 --repetitions 2"
RATE_CURVES = Curves("images/s", "images_per_second", "reference_images_per_second")

TOPICS = (
    Topic(
        "Selection",
        "selection.py",
        {
            "all classes, s": figure("seconds"),
            "a class, ms": figure("seconds_per_class", 1000),
            "reference, a class, ms": figure("reference_seconds_per_class", 1000),
            "ratio": figure("ratio"),
            "peak memory, MB": figure("peak_mb"),
        },
        {
            "as released": "--preset released --classes 1000",
            "as in the paper": "--preset paper --classes 1000",
            "half of the paper's search range": "--preset paper --classes 1000 --search-fraction 0.05",
            "twice the paper's search range": "--preset paper --classes 1000 --search-fraction 0.2 --references 1",
        },
        "--classes 2 --originals 300 --references 1",
        Growth(
            "--classes",
            (10, 100, 1000),
            "--preset released",
            Curves("ms a class", "seconds_per_class", "reference_seconds_per_class", 1000),
        ),
    ),
    Topic(
        "Training a DiT",
        "finetune.py",
        {
            "a step, ms": figure("ms_per_step"),
            "reference, a step, ms": figure("reference_ms_per_step"),
            "ratio": figure("ratio"),
            "Lightning's overhead": overhead,
        },
        {
            "the quickstart's DiT, batch 64": "--size digits",
            "the same in mixed precision, batch 64": "--size digits --precision bf16-mixed",
            "DiT-S/2, TAESD, 128 px, batch 8": "--size imagewoof128",
            "the same, compiled": "--size imagewoof128 --compile",
            "the same in mixed precision": "--size imagewoof128 --precision bf16-mixed",
            "the same in mixed precision, compiled": "--size imagewoof128 --precision bf16-mixed --compile",
            "pre-training, DiT-S/2, 128 px, batch 8": "--size imagewoof128 --pretrain",
            "pre-training, compiled": "--size imagewoof128 --pretrain --compile",
            "pre-training in mixed precision": "--size imagewoof128 --pretrain --precision bf16-mixed",
            "pre-training, mixed, compiled": "--size imagewoof128 --pretrain --precision bf16-mixed --compile",
        },
        "--steps 2",
        Growth(
            "--memory",
            (8, 32, 128, 512),
            "--size digits",
            Curves("ms a step", "ms_per_step", "reference_ms_per_step"),
        ),
    ),
    Topic(
        "Matching",
        "matching.py",
        {
            "a step, ms": figure("ms_per_step"),
            "reference, a step, ms": figure("reference_ms_per_step"),
            "ratio": figure("ratio"),
        },
        {
            "DM, digits": "--method dm --size digits",
            "DM, ConvNet-3, 32 px": "--method dm --size 32px",
            "IDC-1, digits": "--method idc1 --size digits",
            "IDC-1, ConvNet-3, 32 px": "--method idc1 --size 32px",
        },
        "--size digits --steps 1",
    ),
    Topic(
        "Generation",
        "generation.py",
        {**RATES, "difference of the images": figure("difference")},
        {
            "the quickstart's DiT": "--size digits",
            "the same in bfloat16": "--size digits --precision bf16-true",
            "DiT-S/2, TAESD, 128 px": f"{DIT_S}",
            "DiT-S/2, TAESD, 128 px, compiled": f"{DIT_S} --compile",
            "DiT-S/2, TAESD, 128 px, in bfloat16": f"{DIT_S} --precision bf16-true",
            "DiT-S/2, TAESD, 128 px, in bfloat16, compiled": f"{DIT_S} --precision bf16-true --compile",
        },
        "--images 10 --repetitions 1",
        Growth("--batch-size", (1, 8, 64, 256), "--size digits --images 260 --repetitions 3", RATE_CURVES),
    ),
    Topic(
        "Encoding",
        "encoding.py",
        {**RATES, "difference of the latents": figure("difference")},
        {
            "TAESD, 128 px": "--size imagewoof128 --repetitions 2",
            "the same in mixed precision": "--size imagewoof128 --repetitions 2 --precision bf16-mixed",
            "the autoencoder of DiT-XL/2, 256 px": "--size xl2 --repetitions 2",
            "the same in mixed precision, 256 px": "--size xl2 --repetitions 2 --precision bf16-mixed",
        },
        "--size imagewoof128 --images 20 --repetitions 1",
    ),
    Topic(
        "Scoring",
        "scoring.py",
        {**RATES, "largest difference": figure("largest_difference")},
        {
            "the quickstart's estimator, 8 px": "--size digits",
            "the same in bfloat16": "--size digits --precision bf16-true",
            "ResNet-50, 224 px": "--size imagenet",
            "ResNet-50, 224 px, in bfloat16": "--size imagenet --precision bf16-true",
        },
        "--images 10 --repetitions 1",
        Growth("--images", (100, 1000, 10000), "--size digits", RATE_CURVES),
    ),
    Topic(
        "Evaluation",
        "evaluation.py",
        RATES,
        {
            "ConvNet-3, 32 px": "--size 32 --networks convnet3",
            "ResNetAP-10, 32 px": "--size 32 --networks resnet_ap10",
            "ConvNet-6, 64 px": "--size 64 --networks convnet6",
        },
        "--epochs 2 --repetitions 1",
    ),
    Topic(
        "ResNet-50 on a CPU",
        "scoring_forms.py",
        {
            "one core, images/s": figure("images_per_second"),
            "as loaded, images/s": figure("reference_images_per_second"),
            "ratio": figure("ratio"),
            "of the rate of matrix products, %": figure("share_of_rate", 100),
            "largest difference": figure("largest_difference"),
            "preparation, s": figure("preparation"),
        },
        {
            "channels last (the default)": "--form channels_last",
            "batch norm in the convolutions": "--form fused",
            "both": "--form channels_last fused",
            "both, compiled": "--form channels_last fused compiled",
            "bfloat16": "--form channels_last bfloat16",
            "bfloat16, batch norm in the convolutions": "--form channels_last fused bfloat16",
            "bfloat16, both, compiled": "--form channels_last fused bfloat16 compiled",
            "the default, 1 image at a time": "--form channels_last --batch-size 1",
            "the default, 64 images at a time": "--form channels_last --batch-size 64",
        },
        "--side 64 --repetitions 1",
    ),
    Topic(
        "Launchers",
        "launchers.py",
        {
            f"{name}, s a stage": first_of(key)
            for name, key in {"local": "local", "Ray": "ray", "a process a stage": "process"}.items()
        },
        {f"{slots} slots": f"--trainings 40 --slots {slots}" for slots in (1, 2, 4)},
        "--plan quickstart",
    ),
    Topic(
        "Command line",
        "command_line.py",
        {
            "s": figure("seconds"),
            "imports alone, s": figure("reference_seconds"),
            "ratio": figure("ratio"),
        },
        {
            "`dgs --help`": "--command help",
            "a dry run": "--command dry_run",
            "a run that is finished": "--command finished",
            "the doctor": "--command doctor",
        },
        "--command help --repetitions 1",
    ),
    Topic(
        "Order of stages",
        "stage_order.py",
        {
            f"{heading}, {jobs} jobs": figure(f"{name}_{jobs}", factor)
            for jobs in (2, 4, 8, 13)
            for name, heading, factor in (
                ("plan", "plan, s", 1),
                ("own_saved", "saved, %", 100),
                ("known_saved", "known, %", 100),
            )
        },
        {
            "quickstart, 133 stages": "--experiment quickstart",
            "fashion_mnist, 493 stages": "--experiment fashion_mnist",
            "imagewoof64, 67 stages": "--experiment imagewoof64",
            "own_images, 70 stages": "--experiment own_images",
            "rivals_digits, 185 stages": "--experiment rivals_digits",
            "quickstart, run and not simulated": "--experiment quickstart --run --repetitions 2 --jobs 2",
        },
        "--jobs 2",
    ),
    Topic(
        "ImageNet-1K",
        "imagenet_scale.py",
        {
            f"{heading} at {classes:,}": figure(f"{name}_{classes}")
            for name, heading in {"seconds": "s", "peak_mb": "peak MB", "disk_mb": "MB on the disk"}.items()
            for classes in (10, 100, 1000)
        },
        {
            "scores": "--part scores",
            "selection": "--part selection",
            "latents, of 1/50 of the images": "--part latents",
            "centres, of 1/10 of the classes": "--part centers",
            "requests": "--part requests",
            "page": "--part report",
        },
        "--classes 2",
    ),
)
