"""The layout of a run's folder: this module alone writes and parses the paths in it.

Every path here is relative to the run's folder, in POSIX form. The folder of a stage has the stage's name.

.. code-block:: text

    experiment.yaml                                settings of the run
    stages/STAGE.yaml, stages/STAGE.json           settings of a stage, and the record of how it went
    stages/STAGE.lock                              held by the process that writes the stage
    stages/STAGE.results                           name, size and hash of each file that it left
    set_aside/...                                  results that something else has changed; what a cut report left
    data/train, data/val                           prepared images
    latents, pretrain, finetune, judge             latent cache and trainings; a training leaves weights/
    estimator/foldK                                trainings of the difficulty estimator
    pools/NAME, guided/SET                         generated images
    centers/SET, inverted/SET                      latents of each class for its images; noisy latents of originals
    selected/SET, refined/SET                      images that a rule takes from a pool, and these with refined latents
    imported/NAME                                  sets of other people, the rows set:NAME
    surrogate                                      training of the classifier that IGD's guidance takes its gradients of
    crops, stitched/SET                            crops of the originals, and pictures that are put together from them
    scores/NAME                                    difficulties of an image set
    distilled/SET, validation/NAME                 selected images
    evaluation/SET/[PROTOCOL/]NETWORK/seedK        downstream trainings
    summary.json, summary.md, index.html, tables, figures
    lightning_logs                                 what the logger keeps of the report, and of stages with logger=csv

``SET`` is ``ROW-ipcN`` or, from the second draw on, ``ROW-ipcN-drawK``; ``full`` is the whole training set. Pools of
these draws end in ``-drawK``, too. A pool, or crops, of a row with settings of its own are named ``pools/NAME-ROW``.
``seedK`` is the seed of a training, which follows from its draw and repeat.
"""

import re
from typing import NamedTuple

EXPERIMENT = "experiment.yaml"
STAGES = "stages"
SET_ASIDE = "set_aside"
SUMMARY, SUMMARY_TEXT, PAGE = "summary.json", "summary.md", "index.html"
TABLES, FIGURES = "tables", "figures"
LOGS = "lightning_logs"  # of loggers that do not write into the folders of stages; no results
LOCK = ".lock"
DATA, LATENTS, PRETRAIN, FINETUNE, JUDGE = "data", "latents", "pretrain", "finetune", "judge"
IMPORTED = "imported"
ESTIMATOR, POOLS, GUIDED, SCORES = "estimator", "pools", "guided", "scores"
DISTILLED, VALIDATION, REFINED = "distilled", "validation", "refined"
EVALUATION, CENTERS, REPORT = "evaluation", "centers", "report"
RESULT, SELECTION, TRAJECTORIES = "result.json", "selection.json", "trajectories.safetensors"
ORIGINAL, FULL = "original", "full"
SURROGATE, INFLUENCE = "surrogate", "influence"
GIVEN_POOL = "pool"  # an image pool that was made outside of the run, among the scores
PROTOCOL, SOFT = "hard", "soft"  # protocols of evaluation; paths do not name the first one
UNAUGMENTED = "-unaugmented"  # end of the name of a protocol whose trainings have no data augmentation
_SET = re.compile(r"(.+)-ipc(\d+)(?:-draw(\d+))?")


class SetName(NamedTuple):
    """Name of a distilled set.

    Attributes:
        row: Row of the table: key of a method, or name of a variant.
        ipc: Images per class; None for the whole training set.
        draw: Number of the draw, from 0.
    """

    row: str
    ipc: int | None
    draw: int = 0

    def __str__(self) -> str:
        """Name of the set's folder, such as ``dit_dgs-ipc10``."""
        if self.ipc is None:
            return self.row
        return of_draw(f"{self.row}-ipc{self.ipc}", self.draw)

    @classmethod
    def parse(cls, name: str) -> "SetName":
        """The set with a folder of this name; a name without an IPC stands for a whole training set."""
        match = _SET.fullmatch(name)
        return cls(match[1], int(match[2]), int(match[3] or 0)) if match else cls(name, None)


class Training(NamedTuple):
    """One downstream training.

    Attributes:
        trained_on: The set that the network is trained on.
        network: Name of the network.
        seed: Seed of the training.
        protocol: Name of the evaluation protocol.
    """

    trained_on: SetName
    network: str
    seed: int
    protocol: str = PROTOCOL

    def __str__(self) -> str:
        """Path of the training's folder."""
        protocol = "" if self.protocol == PROTOCOL else f"{self.protocol}/"
        return f"{EVALUATION}/{self.trained_on}/{protocol}{self.network}/seed{self.seed}"

    @classmethod
    def parse(cls, path: str) -> "Training":
        """The training with this folder.

        Raises:
            ValueError: If the path is not that of a training.
        """
        match = re.fullmatch(rf"{EVALUATION}/([^/]+)/(?:([^/]+)/)?([^/]+)/seed(\d+)", path)
        if match is None:
            raise ValueError(f"{path} is not {EVALUATION}/SET/NETWORK/seedK")
        return cls(SetName.parse(match[1]), match[3], int(match[4]), match[2] or PROTOCOL)


def unaugmented(protocol: str) -> str:
    """Name of a protocol without its data augmentation."""
    return f"{protocol}{UNAUGMENTED}"


def of_draw(name: str, draw: int) -> str:
    """Name of what is made anew for each draw; that of draw 0 is the bare name."""
    return f"{name}-draw{draw}" if draw else name


def is_imported(scored: str) -> bool:
    """Whether the scores of this name are those of a set of other people."""
    return scored.startswith(f"{IMPORTED}-")


def is_first_draw(name: str) -> bool:
    """Whether a name, such as that of a pool, is of draw 0."""
    return re.search(r"-draw\d+$", name) is None


def distilled(name: SetName) -> str:
    """Folder of a distilled set."""
    return f"{DISTILLED}/{name}"


def image_folders(name: str) -> list[str]:
    """Folders that may hold the images of a set or pool, as they were made first, and ``original`` for originals."""
    if name == ORIGINAL:
        return [f"{DATA}/train"]
    return [f"{part}/{name}" for part in (POOLS, GUIDED, DISTILLED)]


def scores(name: str) -> str:
    """Folder of the scores of an image set."""
    return f"{SCORES}/{name}"


def scored_as(folder: str) -> str:
    """Name of the scores of images that a stage made: ``dit`` for ``pools/dit``, ``crops-SET`` for ``crops/SET``."""
    part, _, name = folder.partition("/")
    return name if part in (POOLS, GUIDED) else folder.replace("/", "-")


def judged(pool: str) -> str:
    """Name, among the scores, of what the judge says of an image pool."""
    return f"judge-{pool}"


def fold(number: int) -> str:
    """Folder of the estimator that is trained without one fold."""
    return f"{ESTIMATOR}/fold{number}"


def weights(training: str) -> str:
    """Folder of the weights that a training leaves."""
    return f"{training}/weights"


def influence(training: str) -> str:
    """Folder of the checkpoints and gradients that the training of a surrogate leaves."""
    return f"{training}/{INFLUENCE}"


def stage_settings(stage: str) -> str:
    """YAML file with the settings of a stage."""
    return f"{STAGES}/{stage}.yaml"


def stage_record(stage: str) -> str:
    """JSON file that records how a stage went."""
    return f"{STAGES}/{stage}.json"


def stage_results(stage: str) -> str:
    """File that lists what a stage left: name, size and hash of each file."""
    return f"{STAGES}/{stage}.results"


def stage_lock(stage: str) -> str:
    """File that the process of a stage holds as long as it writes."""
    return f"{STAGES}/{stage}.lock"


def left_by(stage: str) -> tuple[str, ...]:
    """The folder that a stage writes, or the files and folders of a report."""
    return (SUMMARY, SUMMARY_TEXT, PAGE, TABLES, FIGURES) if stage == REPORT else (stage,)


def stage_of(record: str) -> str:
    """Name of the stage with this settings file or record."""
    return record.removeprefix(f"{STAGES}/").rpartition(".")[0]
