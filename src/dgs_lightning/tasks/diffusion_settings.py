"""Groups of settings of the tasks that train a DiT."""

from dataclasses import dataclass, replace
from typing import Annotated

from dgs_lightning.bounds import AtLeast, Between, Group
from dgs_lightning.models.dit.network import DiTConfig


@dataclass(frozen=True)
class ModelSize(Group):
    """Size of a DiT that is trained from scratch.

    Args:
        name: A published size, ``DiT-{S,B,L,XL}/PATCH``. The next four settings replace its values.
        hidden_size: Width of the model.
        depth: Number of blocks.
        num_heads: Attention heads of each block. This is also used to load a checkpoint file of no published size.
        patch_size: Side of a patch of the latent.
        learn_sigma: Whether the model also predicts the variance of each denoising step.
    """

    name: str = "DiT-S/2"
    hidden_size: Annotated[int | None, Between(1, 65536)] = None
    depth: Annotated[int | None, Between(1, 1024)] = None
    num_heads: Annotated[int | None, Between(1, 65536)] = None
    patch_size: Annotated[int | None, Between(1, 1024)] = None
    learn_sigma: bool = True

    def config(self, latent_shape: tuple[int, int, int], classes: int) -> DiTConfig:
        """Architecture of a model of this size for latents of a shape ``(C, h, w)`` and a number of classes.

        Raises:
            InputError: If there is no such model.
        """
        channels, side, _ = latent_shape
        named = DiTConfig.named(
            self.name, input_size=0, num_classes=classes, in_channels=channels, learn_sigma=self.learn_sigma
        )
        changes = {name: getattr(self, name) for name in ("hidden_size", "depth", "num_heads", "patch_size")}
        return replace(named, **{name: value for name, value in changes.items() if value is not None}, input_size=side)


@dataclass(frozen=True)
class OptimizerSettings(Group):
    """Settings of AdamW.

    Args:
        learning_rate: Learning rate. It stays constant.
        weight_decay: Weight decay.
        fused: Whether one kernel updates all parameters. This is faster.
    """

    learning_rate: Annotated[float, AtLeast(0)] = 1e-3
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    fused: bool = True


@dataclass(frozen=True)
class AverageSettings(Group):
    """Settings of the exponential moving average of the trained parameters.

    Args:
        decay: Share of the average that each step keeps.
        horizon: Share of the run's steps that the average looks back over. It replaces ``decay`` by
            ``1 - 1 / (horizon * steps)``. With a fixed decay, the average of a run that is much shorter than
            ``1 / (1 - decay)`` steps is still close to the model at the start.
    """

    decay: Annotated[float, Between(0, 1, open="right")] = 0.9999
    horizon: Annotated[float | None, Between(0, 1, open="left")] = None
