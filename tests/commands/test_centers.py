from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dgs_lightning.__main__ import main
from dgs_lightning.data.latents import CacheSettings, finish_cache, write_shard
from dgs_lightning.data.records import ImageRecord


@pytest.fixture
def latents(tmp_path: Path) -> str:
    """Cache of four images of each of two classes."""
    folder = tmp_path / "latents"
    settings = CacheSettings("pixels", "none", (1, 2, 2), posterior=False, flips=1, dtype="float32")
    records = [ImageRecord(f"{label}/{i}.png", label) for label in ("cat", "dog") for i in range(4)]
    write_shard(folder, settings.key("images"), torch.arange(8), torch.randn(8, 1, 1, 2, 2), None)
    finish_cache(folder, settings, records, "images")
    return str(folder)


def test_the_command_writes_a_file_once(latents: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "centers.safetensors"
    args = ["centers", f"--latents={latents}", f"--output={path}", "--ipc=3", "--labels=[dog]"]
    assert main(args) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert {label: tuple(found.shape) for label, found in load_file(path).items()} == {"dog": (3, 1, 2, 2)}
    written = path.stat().st_mtime_ns
    assert main(args) == 0
    assert path.stat().st_mtime_ns == written
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--ipc=0"], "ipc: found 0, expected at least 1"),
        (["--smoothing=strong"], "smoothing"),
        (["--scores=nowhere"], "nowhere"),
        (["--labels=[emu]"], "no latents of emu"),
    ],
)
def test_a_wrong_setting_is_one_line(
    latents: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], said: str
) -> None:
    path = tmp_path / "centers.safetensors"
    assert main(["centers", f"--latents={latents}", f"--output={path}", *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dgs centers: ")
    assert said in error
    assert error.count("\n") == 1
    assert not path.exists()
