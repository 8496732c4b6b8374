from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dgs_lightning.data.histograms import write_histograms


def test_tensorboard_reads_the_counts_of_each_interval(tmp_path: Path) -> None:
    write_histograms(tmp_path, {"difficulty/pool": [0.0, 0.05, 0.55, 1.0], "difficulty/original": []})
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["histograms"] == ["difficulty/pool"]
    (shown,) = events.Histograms("difficulty/pool")
    counts = dict(zip(np.round(shown.histogram_value.bucket_limit, 1), shown.histogram_value.bucket, strict=True))
    assert {edge: count for edge, count in counts.items() if count} == {0.1: 2, 0.6: 1, 1.0: 1}


def test_the_file_has_the_same_bytes_whenever_it_is_written(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_histograms(tmp_path / name, {"difficulty": [0.2, 0.4]})
    (one,), (two,) = ((tmp_path / name).iterdir() for name in ("one", "two"))
    assert (one.name, one.read_bytes()) == (two.name, two.read_bytes())
    write_histograms(tmp_path / "one", {"difficulty": [0.2, 0.4, 0.6]})
    assert one.read_bytes() != two.read_bytes()
    assert len(list((tmp_path / "one").iterdir())) == 1
