"""Encoding of an image set into the latent cache that DiTs are trained on."""

from typing import Literal, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from dgs_lightning.bounds import save_settings
from dgs_lightning.data.latents import CacheSettings
from dgs_lightning.datamodules.images import ImageDataModule
from dgs_lightning.models.codec import build_codec


class Encoded(NamedTuple):
    """Latents of a batch of images."""

    images: Tensor  # positions of the images among the records, shape (B,)
    means: Tensor  # shape (B, flips, C, h, w): the image, then its mirror image
    logvars: Tensor | None  # log variances of the same shape; None if the codec has no posterior


class EncodingTask(pl.LightningModule):
    """Encodes images as latents by ``predict`` with :class:`ImageDataModule`. ``LatentWriter`` writes them as a cache.

    Args:
        codec: ``pixels``, or the folder or hub id of an autoencoder. The published one for fine-tuning is
            ``stabilityai/sd-vae-ft-ema``.
        flips: Whether to encode also the mirror image of each image, so that training can flip at random.
        dtype: Type that the latents are stored in.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from dgs_lightning.examples import QUIET, write_images
        >>> with TemporaryDirectory() as folder:
        ...     data = ImageDataModule(predict=write_images(folder), val_batch_size=5)
        ...     batches = pl.Trainer(**QUIET).predict(EncodingTask(codec="pixels"), data)
        >>> [tuple(batch.means.shape) for batch in batches]  # each image and its mirror image
        [(5, 2, 1, 4, 4), (3, 2, 1, 4, 4)]
    """

    def __init__(
        self, codec: str = "pixels", flips: bool = True, dtype: Literal["float16", "float32"] = "float16"
    ) -> None:
        super().__init__()
        save_settings(self)
        self.codec = build_codec(codec)

    def predict_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Encoded:
        """Latents of images in [0, 1]."""
        return self.encode(*batch[:2])

    def encode(self, images: Tensor, positions: Tensor) -> Encoded:
        """Latents of images in [0, 1], shape ``(B, C, H, W)``, which are at these positions among the records."""
        orientations = [images, images.flip(-1)] if self.hparams["flips"] else [images]
        posteriors = [self.codec.encode(orientation * 2 - 1) for orientation in orientations]
        dtype = getattr(torch, self.hparams["dtype"])
        means = torch.stack([posterior.mean for posterior in posteriors], 1).to(dtype)
        logvars = [posterior.logvar for posterior in posteriors if posterior.logvar is not None]
        return Encoded(positions, means, torch.stack(logvars, 1).to(dtype) if logvars else None)

    def cache_settings(self, data: ImageDataModule) -> CacheSettings:
        """Settings that the latents of an image set depend on, and the form of the latents."""
        blank = torch.zeros(1, data.channels, data.image_size, data.image_size)
        for weight in self.codec.parameters():  # when callbacks are set up, device and precision may not be ours yet
            blank = blank.to(weight)
        mean, logvar = self.codec.encode(blank)
        _, channels, height, width = mean.shape
        shape, flips = (channels, height, width), 2 if self.hparams["flips"] else 1
        transform, dtype = data.transform_name, self.hparams["dtype"]
        return CacheSettings(self.codec.identity(), transform, shape, logvar is not None, flips, dtype)
