"""Memory of the gradients of a guidance, on the meta device."""

import pytest
import torch

from dgs_lightning.models.activations import guided_step_bytes
from dgs_lightning.models.dit.network import DiTConfig
from dgs_lightning.models.trial import Classifier, saved_bytes

XL = DiTConfig.named("DiT-XL/2", input_size=32, num_classes=1000)


def test_a_tensor_counts_once_and_parameters_do_not() -> None:
    weight, x = torch.ones(10), torch.ones(10, requires_grad=True)
    assert saved_bytes(lambda: x * weight, [weight]) == 0  # the gradient over x takes the weight alone
    assert saved_bytes(lambda: (x * weight).exp().exp(), [weight]) == 2 * 40
    assert saved_bytes(lambda: (x * x).sum(), [weight]) == 40


def test_the_memory_of_a_guided_step_of_dit_xl_is_bounded_by_its_chunk_and_by_checkpointing() -> None:
    """256 tokens of 1,152 values in 28 blocks, for the conditional and the unconditional branch."""
    tokens = 2 * 256 * 1152 * 4  # bytes of one tensor of tokens
    one, two = (guided_step_bytes(XL, "pixels", chunk=chunk) for chunk in (1, 2))
    assert 28 * 10 * tokens < one < 28 * 20 * tokens
    assert two == pytest.approx(2 * one, rel=0.01)
    kept = guided_step_bytes(XL, "pixels", checkpointing=True)
    assert 28 * tokens < kept < 28 * tokens + 5 * tokens  # the input of each block, and what is outside of blocks


def test_decoder_and_surrogate_are_counted_at_256_pixels() -> None:
    surrogate = Classifier("convnet6", classes=10, side=256, channels=3, width=128)
    alone = guided_step_bytes(XL, "pixels", checkpointing=True)
    first = 128 * 256**2 * 4  # bytes of a feature map of the first layer
    with_surrogate = guided_step_bytes(XL, "pixels", surrogate, checkpointing=True) - alone
    assert 3 * first < with_surrogate < 12 * first
    decoder = guided_step_bytes(XL, "not/on-this-machine", checkpointing=True) - alone
    assert 1e9 < decoder < 2e9
