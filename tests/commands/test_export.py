from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel

from dgs_lightning.__main__ import main
from dgs_lightning.models.dit.formats import save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise


@pytest.fixture
def trained(tmp_path: Path) -> DiT:
    model = DiT(DiTConfig(input_size=4, num_classes=3, in_channels=2, hidden_size=16, depth=2, num_heads=2)).eval()
    initialise(model, 0)
    torch.nn.init.normal_(model.final_layer.linear.weight)
    save_dit(model, tmp_path / "weights")
    return model


def test_a_trained_model_runs_in_stock_diffusers(trained: DiT, tmp_path: Path) -> None:
    assert main(["export", "--dit", str(tmp_path / "weights"), "--output", str(tmp_path / "exported")]) == 0
    transformer: Any = DiTTransformer2DModel
    stock = transformer.from_pretrained(tmp_path / "exported" / "transformer").eval()
    x, t, y = torch.randn(2, 2, 4, 4), torch.tensor([3, 700]), torch.tensor([0, 2])
    with torch.no_grad():
        torch.testing.assert_close(stock(x, t, y).sample, trained(x, t, y), rtol=0, atol=1e-5)


def test_a_pipeline_of_few_classes_is_refused_in_words(
    trained: DiT, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--dit", str(tmp_path / "weights"), "--output", str(tmp_path / "exported"), "--vae", "some/vae"]
    assert main(["export", *options]) == 2
    assert "found 3 classes, expected 1000" in capsys.readouterr().err
    assert not (tmp_path / "exported").exists()
