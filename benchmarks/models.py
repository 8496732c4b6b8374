"""Settings of models that several benchmarks build, with random weights."""

from typing import Any

DIGITS_DIT: dict[str, Any] = {"input_size": 8, "in_channels": 1, "hidden_size": 64, "depth": 3, "num_heads": 4}
STABLE_DIFFUSION_AUTOENCODER: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
}
