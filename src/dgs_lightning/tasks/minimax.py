"""Training of a DiT: Minimax fine-tuning, or from scratch."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor

from dgs_lightning.bounds import Ranged
from dgs_lightning.callbacks.averaging import EMA, EMA_RANGES
from dgs_lightning.datamodules.latents import LatentBatch, LatentDataModule
from dgs_lightning.diffusion.criteria import Criteria, Minimax
from dgs_lightning.diffusion.objective import add_noise, linear_alphas_cumprod, training_terms
from dgs_lightning.errors import InputError
from dgs_lightning.models.allocator import is_out_of_memory
from dgs_lightning.models.dit.difffit import add_difffit, mark_trainable
from dgs_lightning.models.dit.formats import load_dit, save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig, initialise
from dgs_lightning.models.weights import hash_state
from dgs_lightning.seeding import generator


class MinimaxTask(pl.LightningModule, Ranged):
    """Trains a DiT on cached latents with the diffusion loss and the Minimax criteria (Section 3.1, Eq. 1 to 4).

    With ``dit``, that model is fine-tuned; without, one of the given size is trained from scratch, with both weights
    at 0 by the diffusion loss alone. ``fit`` leaves the trained parameters and their moving average in
    ``ROOT/weights``.

    All draws are seeded by the number of the batch, and the criteria are taken over the batches of all devices, so
    that neither a restart nor the number of devices changes the result.

    Args:
        dit: Model to fine-tune: folder, checkpoint or hub id.
        train: Which of its parameters: ``half`` or ``all``: DiffFit with scales in the first half of the blocks, or
            in all; ``bias``: biases and label table alone; ``full``: everything.
        label_table: ``keep`` its classes, ``extend`` them by those of the data, or ``replace`` them.
        size: Size of a model from scratch, ``DiT-{S,B,L,XL}/PATCH``, which the next four change where they are given.
        hidden_size: Width of the model.
        depth: Number of its blocks.
        num_heads: Attention heads of a block; also those of a ``dit`` that is a file of no published size.
        patch_size: Side of a patch of the latent.
        learn_sigma: Whether the model from scratch learns the variance of its steps, too.
        variational: Whether to add the variational-bound term of a learned sigma, which the released weights were
            trained with and the paper's Eq. 2 leaves out.
        representativeness: Weight of Eq. 3.
        diversity: Weight of Eq. 4.
        memory_size: Latents that each memory keeps of a class.
        memory_dtype: Type that they are kept in.
        learning_rate: Learning rate of AdamW, constant.
        weight_decay: Weight decay of AdamW.
        fused: Whether AdamW updates all parameters in one kernel.
        ema_decay: Share of the moving average that each step keeps.
        ema_horizon: Instead, the share of the run's steps that the average looks back over.
        checkpointing: Whether to compute activations again in the backward pass, to save memory.
        compile: Whether to compile the model.
        log_classes: Whether to log the criteria of each class.
        seed: Seed of start values, noise, timesteps and label drops.
    """

    RANGES: ClassVar[Mapping[str, str]] = {
        "hidden_size": "[1, 65536]",
        "depth": "[1, 1024]",
        "num_heads": "[1, 65536]",
        "patch_size": "[1, 1024]",
        "representativeness": "[0, inf)",
        "diversity": "[0, inf)",
        "memory_size": "[1, 1000000]",
        "learning_rate": "[0, inf)",
        "weight_decay": "[0, inf)",
        **EMA_RANGES,
    }

    def __init__(
        self,
        dit: str | None = None,
        train: Literal["half", "all", "bias", "full"] = "half",
        label_table: Literal["keep", "extend", "replace"] = "keep",
        size: str = "DiT-S/2",
        hidden_size: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        patch_size: int | None = None,
        learn_sigma: bool = True,
        variational: bool = True,
        representativeness: float = 0.002,
        diversity: float = 0.008,
        memory_size: int = 64,
        memory_dtype: Literal["float32", "bfloat16"] = "float32",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        fused: bool = True,
        ema_decay: float = 0.9999,
        ema_horizon: float | None = None,
        checkpointing: bool = False,
        compile: bool = False,
        log_classes: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_settings(self.hparams)
        self.strict_loading = False  # a resume checkpoint holds the trained parameters alone
        self.ema = EMA(ema_decay, ema_horizon)
        self.alphas_cumprod = linear_alphas_cumprod()
        self._last_log: tuple[float, int] | None = None  # time and step
        self.last_loss = torch.zeros(())
        self.criteria: Minimax | None = None

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Refuse settings that no data could go with.

        Raises:
            InputError: If a number is out of its range, or a model from scratch has no possible size.
        """
        super().check_settings(settings)
        if not settings["dit"]:
            config_of(settings, (1, 0, 0), 1)  # a side that every patch divides

    # ---- the model -----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Load or make the model, for the classes and latents of the data.

        Raises:
            InputError: If model and data do not fit.
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
        self.ema.averages = {}  # of an earlier fit; those of a checkpoint are loaded later
        self.base_hash = hash_state({name: p for name, p in self.dit.named_parameters() if not p.requires_grad})
        self.dit.train()
        self.dit.checkpointing = self.hparams["checkpointing"]
        if self.hparams["compile"]:
            self.dit.compile()
        self.labels = data.labels
        self.class_indices = self.dit.class_indices(data.labels)
        if self.hparams["representativeness"] or self.hparams["diversity"]:
            size, dtype = self.hparams["memory_size"], getattr(torch, self.hparams["memory_dtype"])
            try:
                self.criteria = Minimax(len(self.labels), size, torch.Size(data.latent_shape).numel(), dtype)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise InputError(
                    "memory_size", found=f"{size}, more than fits in memory", expected="less", remedy="Lower it"
                ) from None

    def _build(self, data: LatentDataModule) -> DiT:
        model = DiT(config_of(self.hparams, data.latent_shape, len(data.labels)), data.labels)
        model.licences = data.licences
        initialise(model, self.hparams["seed"])
        mark_trainable(model, "full")
        return model

    def _load(self, data: LatentDataModule) -> DiT:
        replaced = data.labels if self.hparams["label_table"] == "replace" else None
        model = load_dit(self.hparams["dit"], labels=replaced, num_heads=self.hparams["num_heads"])
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

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the trained parameters."""
        return torch.optim.AdamW(
            [p for p in self.parameters() if p.requires_grad],
            lr=self.hparams["learning_rate"],
            weight_decay=self.hparams["weight_decay"],
            fused=self.hparams["fused"],
        )

    def configure_callbacks(self) -> list[pl.Callback]:
        """The moving average."""
        return [self.ema]

    # ---- a step --------------------------------------------------------------------------------------------------

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        """Loss of a batch: noise error, variational bound and the two criteria."""
        noise, t, drop = self._draw(batch)
        noisy = add_noise(batch.latents, noise, self.alphas_cumprod[t])
        output = self.dit(noisy, t, self.class_indices[batch.classes], drop)
        if not self.hparams["variational"]:
            output = output[:, : noise.shape[1]]
        terms = training_terms(output, batch.latents, noise, t, self.alphas_cumprod)
        losses = {"noise": terms.mse.mean(), "bound": terms.bound.mean()}
        criteria = None
        if self.criteria is not None:  # over the batches of all devices
            pred, latents = self._over_devices(terms.pred_x0), self._gather(batch.latents)
            criteria = self.criteria(pred, latents, self._gather(batch.classes))
            losses["representativeness"] = self.hparams["representativeness"] * criteria.representativeness
            losses["diversity"] = self.hparams["diversity"] * criteria.diversity
        loss = torch.stack(list(losses.values())).sum()
        self.last_loss = loss.detach()
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log(losses, criteria, len(batch.latents))
        return loss

    def _draw(self, batch: LatentBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, timesteps and label drops: drawn for the whole batch, of which this device takes its share."""
        share, devices = len(batch.latents), self.trainer.world_size
        own = slice(self.global_rank * share, (self.global_rank + 1) * share)
        random = generator("diffusion", self.hparams["seed"], batch.number)
        noise = torch.randn(share * devices, *batch.latents.shape[1:], generator=random)[own]
        t = torch.randint(len(self.alphas_cumprod), (share * devices,), generator=random)[own]
        drop = torch.rand(share * devices, generator=random)[own] < self.dit.config.class_dropout_prob
        return noise.to(batch.latents), t.to(self.device), drop.to(self.device)

    def _gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all devices as one batch, in the order of the devices, without gradient."""
        if self.trainer.world_size == 1:
            return tensor
        gathered: Tensor = self.all_gather(tensor.detach())  # type: ignore[assignment]
        return gathered.flatten(0, 1)

    def _over_devices(self, tensor: Tensor) -> Tensor:
        """The same, with the gradient of this device's part.

        Distributed training averages gradients over the devices, but a loss of the whole batch has their sum: each
        device's part of the gradient counts as often as there are devices.
        """
        devices = self.trainer.world_size
        if devices == 1:
            return tensor
        parts = list(self._gather(tensor).chunk(devices))
        parts[self.global_rank] = tensor.detach() + devices * (tensor - tensor.detach())
        return torch.cat(parts)

    # ---- what is logged, and what is wrong -----------------------------------------------------------------------

    def _log(self, losses: dict[str, Tensor], criteria: Criteria | None, share: int) -> None:
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
        if criteria is not None and self.criteria is not None:
            self.log("memory_fill", self.criteria.real.filled.float().mean())
            if self.hparams["log_classes"]:
                self._log_classes(criteria)

    def _log_classes(self, criteria: Criteria) -> None:
        for name in ("representativeness", "diversity"):
            values = getattr(criteria, f"{name}_by_class").tolist()
            known = {label: value for label, value in zip(self.labels, values, strict=True) if value == value}
            self.log_dict({f"{name}/{label}": value for label, value in known.items()})

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
        """Move to the device what is no part of the model: precision plugins and DDP leave it alone so."""
        self.alphas_cumprod = self.alphas_cumprod.to(self.device)
        self.class_indices = self.class_indices.to(self.device)
        if self.criteria is not None:
            self.criteria.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained parameters and the memories, and of what is frozen only the hash."""
        self._check_loss()
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in sorted(trained)}
        checkpoint["base"] = self.base_hash
        checkpoint["memories"] = self.criteria and self.criteria.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the memories.

        Raises:
            InputError: If the checkpoint is of other settings.
        """
        trained = {name: p.shape for name, p in self.named_parameters() if p.requires_grad}
        found = {name: tensor.shape for name, tensor in checkpoint["state_dict"].items()}
        try:
            if found != trained or checkpoint["base"] != self.base_hash:
                raise ValueError("parameters of another model, or another way of training")
            if self.criteria is not None:
                self.criteria.load_state_dict(checkpoint["memories"] or {})
        except (KeyError, ValueError) as error:
            raise InputError(
                "checkpoint to resume",
                found="no memories" if isinstance(error, KeyError) else str(error),
                expected="one made with these settings",
                remedy="Resume with the old settings, or start in a new folder",
            ) from None

    def on_fit_end(self) -> None:
        """Write the weights, those of a resumed run that had nothing left to do, too."""
        if not self.trainer.is_global_zero:
            return
        self._check_loss()
        model = self.dit.float()
        averages = {name.removeprefix("dit."): average.float() for name, average in self.ema.averages.items()}
        base = None if self.hparams["train"] == "full" else self.hparams["dit"]
        folder = Path(self.trainer.default_root_dir) / "weights"
        save_dit(model, folder, ema={**dict(model.named_parameters()), **averages}, base=base)


def config_of(settings: Mapping[str, Any], latent_shape: tuple[int, int, int], classes: int) -> DiTConfig:
    """Architecture of a model from scratch: that of its name, with what the settings change in it."""
    channels, side, _ = latent_shape
    changes = {name: settings[name] for name in ("hidden_size", "depth", "num_heads", "patch_size")}
    given = {name: value for name, value in changes.items() if value is not None}
    learn_sigma = settings["learn_sigma"]
    named = DiTConfig.named(
        settings["size"], input_size=0, num_classes=classes, in_channels=channels, learn_sigma=learn_sigma
    )
    return replace(named, **given, input_size=side)
