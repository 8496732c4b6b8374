"""Training of a diffusion transformer (DiT), from scratch or fine-tuned."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from dgs_lightning.bounds import save_settings
from dgs_lightning.datamodules.latents import LatentBatch, LatentDataModule
from dgs_lightning.diffusion.ema import MovingAverage, decay_of_horizon
from dgs_lightning.diffusion.objective import TrainingTerms, add_noise, linear_alphas_cumprod, training_terms
from dgs_lightning.errors import InputError
from dgs_lightning.models.dit.difffit import add_difffit, mark_trainable
from dgs_lightning.models.dit.formats import load_dit, save_dit
from dgs_lightning.models.dit.network import DiT, initialise
from dgs_lightning.models.weights import hash_state
from dgs_lightning.seeding import generator
from dgs_lightning.tasks.diffusion_settings import AverageSettings, ModelSize, OptimizerSettings


class DiffusionTask(pl.LightningModule):
    """Trains a DiT on cached latents with the diffusion loss (Section 3.1, Eq. 1 and 2).

    With ``dit``, the task fine-tunes that model. Without it, the task trains a new model of the given ``size``.
    :class:`~dgs_lightning.callbacks.weights.WeightsWriter` writes the trained parameters and their moving average.

    Noise, timesteps and label drops are seeded by the number of the batch. Restarts and the number of devices do not
    change them.

    Args:
        dit: Model to fine-tune: a weights folder, a checkpoint file or the id of a model on the Hugging Face hub.
        train: Parameters of ``dit`` to train. ``half`` and ``all``: DiffFit, with scale vectors in the first half of
            the blocks or in all blocks. ``bias``: biases and label table. ``full``: all parameters.
        label_table: What to do with the classes of ``dit``: ``keep`` them, ``extend`` them by those of the data, or
            ``replace`` them by those of the data.
        size: Size of a new model.
        variational: Whether to train the learned sigma with the variational bound. The released weights were trained
            with it; Eq. 2 of the paper leaves it out.
        optimizer: Settings of AdamW.
        average: Settings of the moving average.
        checkpointing: Whether the backward pass computes activations again, to save memory.
        compile: Whether to compile the model.
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
        >>> from dgs_lightning.data.latents import CacheSettings, finish_cache, write_shard
        >>> from dgs_lightning.data.records import ImageRecord
        >>> folder = TemporaryDirectory()
        >>> cache = Path(folder.name, "latents")  # eight random latents of two classes
        >>> settings = CacheSettings("pixels", "none", (1, 4, 4), posterior=False, flips=1, dtype="float32")
        >>> records = [ImageRecord(f"{label}/{i}.png", label) for label in ("cat", "dog") for i in range(4)]
        >>> write_shard(cache, settings.key(""), torch.arange(8), torch.randn(8, 1, 1, 4, 4), None)
        >>> finish_cache(cache, settings, records, "")
        >>> quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = pl.Trainer(
        ...     max_steps=2, default_root_dir=folder.name, callbacks=[WeightsWriter()], accelerator="cpu",
        ...     enable_checkpointing=False, **quiet
        ... )
        >>> task = DiffusionTask(size=ModelSize(hidden_size=16, depth=1, num_heads=2))
        >>> trainer.fit(task, LatentDataModule(str(cache), batch_size=4))
        >>> load_dit(str(Path(folder.name, "weights"))).labels
        ('cat', 'dog')
        >>> folder.cleanup()
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"ema_decay": "average.decay", "ema_horizon": "average.horizon"}

    def __init__(
        self,
        dit: str | None = None,
        train: Literal["half", "all", "bias", "full"] = "half",
        label_table: Literal["keep", "extend", "replace"] = "keep",
        size: ModelSize = ModelSize(),
        variational: bool = True,
        optimizer: OptimizerSettings = OptimizerSettings(),
        average: AverageSettings = AverageSettings(),
        checkpointing: bool = False,
        compile: bool = False,
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
        """Check the size of a new model.

        Raises:
            InputError: If there is no such model.
        """
        if not settings["dit"]:
            ModelSize.of(settings["size"]).config((1, 0, 0), 1)  # every patch divides a side of 0

    # ---- the model -----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Load or make the model, for the classes and latents of the data.

        Raises:
            InputError: If model and data do not fit, or the precision is too low to train in.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, LatentDataModule):
            raise InputError(
                "data", found=type(data).__name__, expected="LatentDataModule", remedy="Encode the images and use it"
            )
        if self.trainer.precision in ("16-true", "bf16-true"):
            raise InputError(
                "precision",
                found=str(self.trainer.precision),
                expected="32-true, or bf16-mixed or 16-mixed: the small steps are lost in 16-bit parameters",
                remedy="Set precision to bf16-mixed",
            )
        self.dit = self._load(data) if self.hparams["dit"] else self._build(data)
        self.base_hash = hash_state({name: p for name, p in self.dit.named_parameters() if not p.requires_grad})
        self._restored = None
        self.dit.train()
        self.dit.checkpointing = self.hparams["checkpointing"]
        if self.hparams["compile"]:
            self.dit.compile()
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
        expected = (model.config.in_channels, model.config.input_size, model.config.input_size)
        if data.latent_shape != expected:
            raise InputError(
                f"latents of {data.hparams['cache']}",
                found=f"shape {data.latent_shape}",
                expected=f"{expected}, as {self.hparams['dit']} takes them",
                remedy="Encode with the codec and image size of this model",
            )
        blocks = self.hparams["train"]
        if blocks in ("half", "all"):
            add_difffit(model, blocks)
        mark_trainable(model, "difffit" if blocks in ("half", "all") else blocks)
        return model

    def configure_optimizers(self) -> Optimizer:
        """AdamW over the trained parameters."""
        return torch.optim.AdamW(
            self._trained().values(),
            lr=self.optimizer.learning_rate,
            weight_decay=self.optimizer.weight_decay,
            fused=self.optimizer.fused,
        )

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    # ---- a step --------------------------------------------------------------------------------------------------

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        """Loss of a batch: noise error, variational bound and the losses that a subclass adds."""
        terms = self._terms(batch)
        losses = {"noise": terms.mse.mean(), "bound": terms.bound.mean(), **self.added_losses(terms.pred_x0, batch)}
        loss = torch.stack(list(losses.values())).sum()
        self.last_loss = loss.detach()
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log_progress(losses, len(batch.latents))
        return loss

    def added_losses(self, pred_x0: Tensor, batch: LatentBatch) -> dict[str, Tensor]:
        """Weighted losses that a subclass adds to the diffusion loss, by name.

        Args:
            pred_x0: Predicted clean latents of this device's share of the batch, shape ``(B, C, h, w)``.
            batch: This device's share of the batch.
        """
        return {}

    def _terms(self, batch: LatentBatch) -> TrainingTerms:
        noise, t, drop = self._draw(batch)
        noisy = add_noise(batch.latents, noise, self.alphas_cumprod[t])
        output = self.dit(noisy, t, self.class_indices[batch.classes], drop)
        if not self.hparams["variational"]:
            output = output[:, : noise.shape[1]]
        return training_terms(output, batch.latents, noise, t, self.alphas_cumprod)

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
        """Log the losses, the learning rate and the speed.

        Args:
            losses: Weighted losses of this device's share of the batch, by name.
            share: Latents in this share.
        """
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
            raise InputError(
                f"loss of step {self.global_step}",
                found=str(self.last_loss.item()),
                expected="a finite number",
                remedy="Lower learning_rate, or use precision 32 or bf16-mixed, and start again in a new folder",
            )

    # ---- start, resume and end -----------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Start the moving average, and move to the device what Lightning does not move.

        The tensors moved here are no buffers, because precision plugins would round buffers and DDP would broadcast
        them in each step.
        """
        self.ema = MovingAverage(self._trained(), self._restored)
        self.alphas_cumprod = self.alphas_cumprod.to(self.device)
        self.class_indices = self.class_indices.to(self.device)

    def on_train_start(self) -> None:
        """Settle the decay. Lightning counts the steps of the run here at the earliest: the loader is restored now.

        Raises:
            InputError: If there is a horizon and the run has no last step.
        """
        self.decay, horizon = self.average.decay, self.average.horizon
        if horizon is None:
            return
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise InputError(
                "average.horizon",
                found=f"{horizon} of a run without end",
                expected="a run of a known number of steps or epochs",
                remedy="Set max_steps or max_epochs, or use average.decay alone",
            )
        self.decay = decay_of_horizon(horizon, steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained parameters and their average. Keep only a hash of the frozen parameters.

        Raises:
            InputError: If the loss is no longer finite.
        """
        self._check_loss()
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in sorted(self._trained())}
        checkpoint["base"] = self.base_hash
        checkpoint["average"] = dict(self.ema.averages)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the moving average.

        Raises:
            InputError: If the checkpoint was made with other settings.
        """
        trained = {name: parameter.shape for name, parameter in self._trained().items()}
        found = {name: tensor.shape for name, tensor in checkpoint["state_dict"].items()}
        if found != trained or checkpoint.get("base") != self.base_hash:
            self.refuse_checkpoint("parameters of another model, or another way of training")
        # Version 0.1.0 kept the average in a callback. Lightning would warn that this callback is missing.
        of_callback = checkpoint.get("callbacks", {}).pop("EMA", None)
        self._restored = checkpoint.get("average", of_callback)
        if self._restored is None or self._restored.keys() != trained.keys():
            self.refuse_checkpoint("no moving average of its parameters")

    @staticmethod
    def refuse_checkpoint(found: str) -> NoReturn:
        """Refuse to resume from a checkpoint.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "checkpoint to resume",
            found=found,
            expected="one made with these settings",
            remedy="Resume with the old settings, or start in a new folder",
        )

    def save_weights(self, folder: Path) -> None:
        """Write the trained parameters and their moving average.

        Args:
            folder: Folder to write; :func:`~dgs_lightning.models.dit.formats.load_dit` reads it.

        Raises:
            InputError: If the loss is no longer finite.
        """
        self._check_loss()
        model = self.dit.float()
        averages = {name.removeprefix("dit."): average.float() for name, average in self.ema.averages.items()}
        base = None if self.hparams["train"] == "full" else self.hparams["dit"]
        save_dit(model, folder, ema={**dict(model.named_parameters()), **averages}, base=base)
