"""A healthy experiment on a few images, which each test then spoils."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgs_lightning.data.classes import class_list
from dgs_lightning.experiment.settings import Experiment

MakeTree = Callable[[Path, Sequence[str], int], Path]


@pytest.fixture
def make_tree() -> MakeTree:
    """Writes a tree with so many images of each class, 16 x 16 pixels."""

    def make(folder: Path, labels: Sequence[str], images: int) -> Path:
        random = np.random.default_rng(images)  # no image is in two trees
        for label in labels:
            (folder / label).mkdir(parents=True)
            for index in range(images):
                pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / label / f"{index}.png")
        return folder

    return make


@pytest.fixture
def healthy(tmp_path: Path, make_tree: MakeTree) -> Experiment:
    """Imagenette in small, everything trained from scratch."""
    make_tree(tmp_path / "data" / "train", class_list("imagenette"), 12)
    make_tree(tmp_path / "data" / "val", class_list("imagenette"), 4)
    small = {"size": {"name": "DiT-S/2", "hidden_size": 32, "depth": 2, "num_heads": 2}}
    return Experiment(
        title="small",
        methods=["random", "dit_dgs", "minimax_dgs", "mgd3"],
        ipc=[5, 10],
        networks=["convnet2"],
        draws=1,
        repeats=2,
        output=(tmp_path / "run").as_posix(),
        data=(tmp_path / "data").as_posix(),
        classes="imagenette",
        image_size=16,
        folds=2,
        prepare={},
        pretrain={
            "model": {"init_args": small},
            "data": {"init_args": {"batch_size": 20}},
            "trainer": {"max_steps": 30},
        },
        finetune={"trainer": {"max_epochs": 2}},
        cross_fit={"model": {"init_args": {"network": "convnet2"}}, "trainer": {"max_epochs": 3}},
        evaluate={"trainer": {"max_epochs": 4, "check_val_every_n_epoch": 2}},
    )
