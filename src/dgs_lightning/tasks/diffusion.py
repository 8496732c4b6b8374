"""Training of a diffusion transformer (DiT), from scratch or fine-tuned."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import AdamW

from dgs_lightning.bounds import AtLeast, Between, Group, save_settings
from dgs_lightning.datamodules.latents import LatentBatch, LatentDataModule
from dgs_lightning.diffusion.ema import MovingAverage, decay_of_horizon
from dgs_lightning.diffusion.objective import add_noise, linear_alphas_cumprod, training_terms
from dgs_lightning.errors import InputError
from dgs_lightning.models.dit.difffit import Trained, mark_trainable, prepare_training
from dgs_lightning.models.dit.formats import load_dit, save_dit
from dgs_lightning.models.dit.network import Compile, DiT, DiTConfig, initialise
from dgs_lightning.models.weights import hash_state
from dgs_lightning.seeding import generator

TRAINING = 3  # forward passes that take as long as one forward and backward pass


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


class DiffusionTask(pl.LightningModule):
    """Trains a DiT on cached latents with the diffusion loss (Section 3.1, Eq. 1 and 2).

    With ``dit``, the task fine-tunes that model. Without it, the task trains a new model of the given ``size``.
    :class:`~dgs_lightning.callbacks.weights.WeightsWriter` writes the trained parameters and their moving average.

    Noise, timesteps and label drops are seeded by the number of the batch, so that they do not depend on restarts and
    the number of devices.

    Args:
        dit: Model to fine-tune: a weights folder, a checkpoint file or the id of a model on the Hugging Face hub.
        train: Parameters of ``dit`` to train. ``half`` and ``all``: DiffFit, with scale vectors in the first half of
            the blocks or in all blocks. ``bias``: biases and label table. ``full``: all parameters.
        label_table: Change of the classes of ``dit``: ``keep`` them, ``extend`` them by those of the data, or
            ``replace`` them by those of the data.
        size: Size of a new model.
        variational: Whether to train the learned sigma with the variational bound. The released weights were trained
            with it; Eq. 2 of the paper leaves it out.
        optimizer: Settings of AdamW.
        average: Settings of the moving average.
        checkpointing: Whether the backward pass computes activations again, to save memory.
        compile: Whether to compile the model; ``long``: if that saves time in a training of this length.
        seed: Seed of the initial weights, noise, timesteps and label drops.

    Attributes:
        dit: The model, once ``setup`` has run.
        labels: Classes of the data, in the order of the batches' positions.
        ema: The moving average, once ``fit`` has started.
        last_loss: Loss of the last batch, without gradient.

    Raises:
        InputError: If a number is out of its range, or there is no model of this size.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning import WeightsWriter
        >>> from dgs_lightning.examples import SILENT, write_latents
        >>> with TemporaryDirectory() as folder:
        ...     data = LatentDataModule(write_latents(f"{folder}/latents"), batch_size=4)
        ...     trainer = pl.Trainer(**SILENT, max_steps=2, default_root_dir=folder, callbacks=[WeightsWriter()])
        ...     trainer.fit(DiffusionTask(size=ModelSize(hidden_size=16, depth=1, num_heads=2)), data)
        ...     load_dit(f"{folder}/weights").labels
        ('cat', 'dog')
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"ema_decay": "average.decay", "ema_horizon": "average.horizon"}

    def __init__(
        self,
        dit: str | None = None,
        train: Trained = "half",
        label_table: Literal["keep", "extend", "replace"] = "keep",
        size: ModelSize = ModelSize(),
        variational: bool = True,
        optimizer: OptimizerSettings = OptimizerSettings(),
        average: AverageSettings = AverageSettings(),
        checkpointing: bool = False,
        compile: Compile = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        save_settings(self)
        self.size = ModelSize.of(size)
        self.optimizer = OptimizerSettings.of(optimizer)
        self.average = AverageSettings.of(average)
        self.strict_loading = False  # a checkpoint to resume holds the trained parameters only
        self.alphas_cumprod = linear_alphas_cumprod()
        self.last_loss = torch.zeros(())
        self._restored: Mapping[str, Tensor] | None = None  # averages of a checkpoint
        self._last_log: tuple[float, int] | None = None  # time and step

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Check the size of a new model."""
        if not settings["dit"]:
            ModelSize.of(settings["size"]).config((1, 0, 0), 1)  # every patch divides a side of 0

    # ---- the model -----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Load or make the model. Refuse data that do not fit it, and a precision that is too low for training."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, LatentDataModule):
            raise InputError.wrong_class("data", [data], "LatentDataModule", "Encode the images and use it")
        if self.trainer.precision in ("16-true", "bf16-true"):
            expected = "32-true, or bf16-mixed or 16-mixed: the small steps are lost in 16-bit parameters"
            raise InputError.setting("precision", self.trainer.precision, expected, "Set precision to bf16-mixed")
        self.dit = self._load(data) if self.hparams["dit"] else self._build(data)
        self.base_hash = hash_state({name: p for name, p in self.dit.named_parameters() if not p.requires_grad})
        self._restored = None
        self.dit.train()
        self.dit.checkpointing = self.hparams["checkpointing"]
        self.labels = data.labels
        self.class_indices = self.dit.class_indices(data.labels)

    def _build(self, data: LatentDataModule) -> DiT:
        model = DiT(self.size.config(data.latent_shape, len(data.labels)), data.labels)
        model.licences = data.licences
        initialise(model, self.hparams["seed"])
        mark_trainable(model, "full")
        return model

    def _load(self, data: LatentDataModule) -> DiT:
        replaced = data.labels if self.hparams["label_table"] == "replace" else None
        model = load_dit(self.hparams["dit"], labels=replaced, num_heads=self.size.num_heads)
        if self.hparams["label_table"] == "extend":
            model.relabel([*model.labels, *(label for label in data.labels if label not in model.labels)])
        model.licences = tuple(sorted({*model.licences, *data.licences}))
        if data.latent_shape != model.config.latent_shape:
            expected = f"{model.config.latent_shape}, as {self.hparams['dit']} takes them"
            where, remedy = f"latents of {data.hparams['cache']}", "Encode with the codec and image size of this model"
            raise InputError(where, f"shape {data.latent_shape}", expected, remedy)
        prepare_training(model, self.hparams["train"])
        return model

    def configure_optimizers(self) -> AdamW:
        """AdamW over the trained parameters."""
        lr, weight_decay, fused = self.optimizer.learning_rate, self.optimizer.weight_decay, self.optimizer.fused
        return AdamW(self._trained().values(), lr, weight_decay=weight_decay, fused=fused)

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    # ---- a step --------------------------------------------------------------------------------------------------

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        """Loss of a batch: noise error, variational bound and the losses that a subclass adds."""
        noise, t, drop = self._draw(batch)
        noisy = add_noise(batch.latents, noise, self.alphas_cumprod[t])
        output = self.dit(noisy, t, self.class_indices[batch.classes], drop)
        if not self.hparams["variational"]:
            output = output[:, : noise.shape[1]]
        terms = training_terms(output, batch.latents, noise, t, self.alphas_cumprod)
        losses = {"noise": terms.mse.mean(), "bound": terms.bound.mean(), **self.added_losses(terms.pred_x0, batch)}
        loss = torch.stack(list(losses.values())).sum()
        self.last_loss = loss.detach()
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log_progress(losses, len(batch.latents))
        return loss

    def added_losses(self, pred_x0: Tensor, batch: LatentBatch) -> dict[str, Tensor]:
        """Weighted losses that a subclass adds to the diffusion loss, by name.

        Args:
            pred_x0: Predicted clean latents of the batch, shape ``(B, C, h, w)``.
            batch: This device's share of the whole batch.
        """
        return {}

    def _draw(self, batch: LatentBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, timesteps and label drops. They are drawn for the whole batch; this device takes its share."""
        share, devices = len(batch.latents), self.trainer.world_size
        own = slice(self.global_rank * share, (self.global_rank + 1) * share)
        random = generator("diffusion", self.hparams["seed"], batch.number)
        noise = torch.randn(share * devices, *batch.latents.shape[1:], generator=random)[own]
        t = torch.randint(len(self.alphas_cumprod), (share * devices,), generator=random)[own]
        drop = torch.rand(share * devices, generator=random)[own] < self.dit.config.class_dropout_prob
        return noise.to(batch.latents), t.to(self.device), drop.to(self.device)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Update the moving average after each step of the optimizer, before any callback reads or saves it."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.decay)

    # ---- logs and checks -----------------------------------------------------------------------------------------

    def log_progress(self, losses: dict[str, Tensor], share: int) -> None:
        """Log the weighted losses, the learning rate and the speed, for a batch of ``share`` latents on this device."""
        self._check_loss()
        self.log_dict({f"loss/{name}": value.detach() for name, value in losses.items()}, sync_dist=True)
        self.log("loss", self.last_loss, prog_bar=True, sync_dist=True)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        now, step = time.monotonic(), self.global_step
        if self._last_log is not None and step > self._last_log[1]:
            batches = (step - self._last_log[1]) * self.trainer.accumulate_grad_batches
            images = batches * share * self.trainer.world_size
            self.log("images_per_second", images / (now - self._last_log[0]))
        self._last_log = now, step

    def _check_loss(self) -> None:
        if not torch.isfinite(self.last_loss):
            remedy = "Lower learning_rate, or use precision 32 or bf16-mixed, and start again in a new folder"
            raise InputError.not_finite(f"loss of step {self.global_step}", self.last_loss.item(), remedy)

    # ---- start, resume and end -----------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Start the moving average, and move the tensors that Lightning does not move.

        They are no buffers, because precision plugins would round buffers and DDP would broadcast them in each step.
        """
        self.ema = MovingAverage(self._trained(), self._restored)
        self.alphas_cumprod = self.alphas_cumprod.to(self.device)
        self.class_indices = self.class_indices.to(self.device)

    def on_train_start(self) -> None:
        """Compile, and set the decay of the average. Lightning knows the steps only now, with the loader restored."""
        steps = self.trainer.estimated_stepping_batches
        latents = self.trainer.datamodule.hparams["batch_size"]  # type: ignore[attr-defined]
        self.dit.compile_for(TRAINING * steps * latents, self.hparams["compile"])
        self.decay, horizon = self.average.decay, self.average.horizon
        if horizon is None:
            return
        if steps == float("inf"):
            expected = "a run of a known number of steps or epochs"
            remedy = "Set max_steps or max_epochs, or use average.decay alone"
            raise InputError.setting("average.horizon", f"{horizon} of a run without end", expected, remedy)
        self.decay = decay_of_horizon(horizon, steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained parameters and their average, but only a hash of the frozen parameters."""
        self._check_loss()
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in sorted(self._trained())}
        checkpoint["base"] = self.base_hash
        checkpoint["average"] = dict(self.ema.averages)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the moving average. Refuse a checkpoint that was made with other settings."""
        trained = {name: parameter.shape for name, parameter in self._trained().items()}
        found = {name: tensor.shape for name, tensor in checkpoint["state_dict"].items()}
        if found != trained or checkpoint.get("base") != self.base_hash:
            raise InputError.resume("parameters of another model, or another way of training")
        # Version 0.1.0 kept the average in a callback. Lightning would warn that this callback is missing.
        of_callback = checkpoint.get("callbacks", {}).pop("EMA", None)
        self._restored = checkpoint.get("average", of_callback)
        if self._restored is None or self._restored.keys() != trained.keys():
            raise InputError.resume("no moving average of its parameters")

    def save_weights(self, folder: Path) -> None:
        """Write the trained parameters and their moving average, for ``load_dit`` to read.

        Raises:
            InputError: If the loss is no longer finite.
        """
        self._check_loss()
        model = self.dit.float()
        averages = {name.removeprefix("dit."): average.float() for name, average in self.ema.averages.items()}
        base = None if self.hparams["train"] == "full" else self.hparams["dit"]
        save_dit(model, folder, ema={**dict(model.named_parameters()), **averages}, base=base)
