"""A file that was cut off is mended by the same command, or named in one line that says what to do: that works."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faults.conftest import Laboratory

pytestmark = pytest.mark.fault

# Kind of stage, first stage to run again, file of an earlier stage that is cut off, the share of it that is left.
BROKEN = [
    ("estimator", "estimator/fold0", "data/train/1/*.png", 0.5),
    ("latents", "latents", "data/train/metadata.jsonl", 0.5),
    ("pretrain", "pretrain", "latents/*.safetensors", 0.5),
    ("pretrain", "pretrain", "latents/*.safetensors", 0.0),
    ("pretrain", "pretrain", "latents/latents.json", 0.5),
    ("pretrain", "pretrain", "latents/metadata.jsonl", 0.5),
    ("finetune", "finetune", "pretrain/weights/ema.safetensors", 0.5),
    ("finetune", "finetune", "pretrain/weights/config.json", 0.5),
    ("generation", "pools/minimax", "finetune/weights/ema.safetensors", 0.9),
    ("generation", "pools/minimax", "pretrain/weights/ema.safetensors", 0.0),
    ("generation", "guided/dag-ipc2", "scores/original/metadata.jsonl", 0.5),
    ("scores", "scores/original", "estimator/fold1/weights/model.safetensors", 0.5),
    ("scores", "scores/minimax", "pools/minimax/1/*.png", 0.5),
    ("scores", "scores/minimax", "pools/minimax/metadata.jsonl", 0.5),
    ("select", "distilled/minimax_dgs-ipc2", "pools/minimax/1/*.png", 0.5),
    ("select", "distilled/minimax_dgs-ipc2", "scores/minimax/metadata.jsonl", 0.5),
    ("evaluation", "evaluation/minimax_dgs-ipc2/convnet2/seed0", "distilled/minimax_dgs-ipc2/1/*.png", 0.5),
    ("evaluation", "evaluation/minimax_dgs-ipc2/convnet2/seed0", "distilled/minimax_dgs-ipc2/metadata.jsonl", 0.5),
    ("evaluation", "evaluation/minimax_dgs-ipc2/convnet2/seed0", "distilled/dag-ipc2/1/*.png", 0.5),
    ("report", "report", "evaluation/minimax_dgs-ipc2/convnet2/seed0/result.json", 0.5),
    ("report", "report", "scores/minimax/metadata.jsonl", 0.5),
    ("report", "report", "stages/finetune.json", 0.5),
    ("matched", "matched/dm-ipc2", "data/train/1/*.png", 0.5),
    ("matched", "matched/idc1-ipc2", "data/train/metadata.jsonl", 0.5),
    ("crops", "crops", "judge/weights/model.safetensors", 0.5),
    ("stitch", "stitched/rded-ipc2", "crops/1/*.png", 0.5),
    ("stitch", "stitched/rded-ipc2", "crops/metadata.jsonl", 0.5),
]
SHORT = {("pretrain", "latents/*.safetensors", 0.5), ("scores", "pools/minimax/1/*.png", 0.5)}

# Kind of stage, stage that is killed, file that it was at work with.
HALF_DONE = [
    ("finetune", "finetune", "finetune/checkpoints/last.ckpt"),
    ("evaluation", "evaluation/dag-ipc2/convnet2/seed0", "evaluation/dag-ipc2/convnet2/seed0/checkpoints/last.ckpt"),
    ("generation", "pools/minimax", "pools/minimax/0/00000.png"),
    ("generation", "pools/minimax", "pools/minimax/.unfinished/0.jsonl"),
    ("generation", "pools/minimax", "pools/minimax/.unfinished/mark.json"),
    ("scores", "scores/original", "scores/original/.unfinished/0.jsonl"),
    ("matched", "matched/dm-ipc2", "matched/dm-ipc2/checkpoints/last.ckpt"),
    ("matched", "matched/idc1-ipc2", "matched/idc1-ipc2/checkpoints/last.ckpt"),
]


def cut(path: Path, left: float) -> None:
    """Leave only the beginning of a file."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])


def mend(laboratory: "Laboratory", output: Path, broken: Path) -> None:
    """Run the experiment, do as its error says, and compare its end with the undisturbed run."""
    for _ in range(3):
        code, log = laboratory.run(output)
        if code == 0:
            break
        message = log[log.index("dgs run: ") :]
        assert code == 2
        assert message.count("\n") == 1, log
        assert str(output) in message
        if "Delete it" in message:
            broken.unlink()
        elif f"Delete {broken.parent.parent} and" in message:
            shutil.rmtree(broken.parent.parent)
        elif "Move the folder elsewhere" in message:  # its record is lost, so nothing proves that it is the run's
            folder = Path(message.removeprefix("dgs run: ").split(": found")[0])
            folder.rename(output.parent / "elsewhere")
        else:
            assert "run the same command again" in message
    laboratory.check(output)


@pytest.mark.parametrize(
    ("kind", "stage", "name", "left"),
    [
        pytest.param(
            *case,
            id=f"{case[0]}-{case[2]}-{case[3]}",
            marks=[] if (case[0], *case[2:]) in SHORT else pytest.mark.matrix,
        )
        for case in BROKEN
    ],
)
def test_a_truncated_file_is_mended_or_named(
    laboratory_of: Callable[[str], "Laboratory"],
    output: Path,
    kind: str,
    stage: str,
    name: str,
    left: float,
    record_property: Callable[[str, object], None],
) -> None:
    laboratory = laboratory_of(kind)
    laboratory.before(stage, output)
    files = sorted(output.glob(name))
    for file in files:
        cut(file, left)
    mend(laboratory, output, files[0])
    record_property("fault", kind)


@pytest.mark.matrix
@pytest.mark.parametrize(("kind", "stage", "name"), HALF_DONE, ids=[case[2] for case in HALF_DONE])
def test_a_truncated_file_of_a_killed_stage_is_mended_or_named(
    laboratory_of: Callable[[str], "Laboratory"],
    output: Path,
    kind: str,
    stage: str,
    name: str,
    record_property: Callable[[str, object], None],
) -> None:
    laboratory = laboratory_of(kind)
    child = laboratory.start(laboratory.before(stage, output))
    child.reach(stage)
    while not (output / name).is_file():
        assert child.record(stage) == "running"
    child.kill(signal.SIGKILL)
    cut(output / name, 0.5)
    mend(laboratory, output, output / name)
    record_property("fault", kind)


@pytest.mark.matrix
def test_a_truncated_summary_is_made_again(
    laboratory: "Laboratory", output: Path, record_property: Callable[[str, object], None]
) -> None:
    laboratory.before("report", output)
    laboratory.check(output)
    cut(output / "summary.json", 0.5)
    laboratory.check(output)
    record_property("fault", "report")


@pytest.mark.matrix
def test_a_truncated_image_of_the_data_is_named(
    laboratory: "Laboratory", output: Path, record_property: Callable[[str, object], None]
) -> None:
    image = sorted(laboratory.data.rglob("*.png"))[0]
    whole, times = image.read_bytes(), image.stat()
    cut(image, 0.5)
    code, log = laboratory.run(laboratory.before("data", output))
    image.write_bytes(whole)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))  # which tells a run that nothing has changed
    assert code == 2, log
    assert f"dgs run: {image}: found no readable image" in log
    assert log[log.index("dgs run: ") :].count("\n") == 1
    laboratory.check(output)
    record_property("fault", "prepare")
