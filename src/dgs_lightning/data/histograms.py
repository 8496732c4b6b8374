"""Histograms of difficulties as a file for TensorBoard."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from dgs_lightning.files import replacing

EVENTS = "events.out.tfevents.difficulty"  # TensorBoard reads a file if "tfevents" is in its name
INTERVALS = 10


def write_histograms(folder: Path, difficulties: Mapping[str, Iterable[float]]) -> None:
    """Write histograms into a folder that ``tensorboard --logdir`` shows as a run.

    The file has neither times nor the name of the machine, so that its bytes depend on the difficulties alone.

    Args:
        folder: The folder. A file that this function wrote there before is replaced.
        difficulties: Difficulties in [0, 1] by tag, such as ``difficulty/pool``. A tag without any is left out.

    Raises:
        InputError: If the disk is full or may not be written to.
    """
    # Only here: TensorBoard takes a second to import.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter
    from torch.utils.tensorboard.summary import histogram

    edges, content = np.linspace(0, 1, INTERVALS + 1), io.BytesIO()
    events = RecordWriter(content)
    events.write(Event(file_version="brain.Event:2").SerializeToString())
    for tag, scores in difficulties.items():
        if (values := np.fromiter(scores, dtype=np.float64)).size:
            events.write(Event(summary=histogram(tag, values, edges)).SerializeToString())  # type: ignore[no-untyped-call]
    with replacing(folder / EVENTS) as partial:
        partial.write_bytes(content.getvalue())
