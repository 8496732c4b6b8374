import pytest

from dgs_lightning.runs.results import is_passing


@pytest.mark.parametrize(
    "name",
    [
        "pretrain/lightning_logs/version_0/config.yaml",
        "pretrain/config.yaml",
        "pretrain/events.out.tfevents.1",
        "finetune/checkpoints/last.ckpt",
        "pools/dit/.unfinished/0.jsonl",
    ],
)
def test_logs_checkpoints_and_unfinished_files_are_no_results(name: str) -> None:
    """A user may delete them, and the stage stays done."""
    assert is_passing(name)


@pytest.mark.parametrize("name", ["pretrain/weights/config.json", "pools/dit/cat/00000.png", "summary.json"])
def test_what_later_stages_read_is_a_result(name: str) -> None:
    assert not is_passing(name)
