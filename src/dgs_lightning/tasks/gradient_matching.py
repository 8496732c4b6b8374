"""Gradient matching (DC, DSA, IDC-1 and IDC): images on which a network gets the gradient of the real images."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dgs_lightning.data.augmentation import cutmix, normalise
from dgs_lightning.errors import InputError
from dgs_lightning.matching.distances import (
    CONVOLUTIONS,
    EVERY_LAYER,
    WEIGHTS,
    gradient_distance,
    mean_embedding_distance,
)
from dgs_lightning.matching.formation import decode, decode_bounded
from dgs_lightning.matching.schedules import BATCH_STORED, IDCSchedule, idc_schedule
from dgs_lightning.matching.siamese import apply
from dgs_lightning.models.embedding import feature_map
from dgs_lightning.models.registry import has_batch_norm
from dgs_lightning.tasks.draws import Draws
from dgs_lightning.tasks.learned_images import LearnedImages
from dgs_lightning.tasks.matching_network import NetworkSettings, NetworkState, training_of_dc, training_of_idc
from dgs_lightning.tasks.protocol import mixed_cross_entropy

LIKE = "fashion"  # data set with the published settings of IDC where none is named
DC_LR = 0.1  # of the images
Published = Literal["mnist", "fashion", "svhn", "cifar10", "cifar100", "imagenet10", "imagenet100"]
Metric = Literal["rowwise", "cosine", "mse", "l1", "l1_mean", "features"]


class GradientMatchingTask(LearnedImages):
    """Learns images by gradient matching.

    A step of the trainer is one round: a step on the images, and the training of the network that follows it.

    ``dc`` (Zhao et al., ICLR 2021): a network is trained on the stored images for a few rounds, and then replaced by a
    new one. The distances of all classes are summed, for one step on all images. DSA is ``dc`` with an augmentation.

    ``idc`` (Kim et al., ICML 2022): the network is trained on real images, with strong augmentation. Each class has a
    step of its own, but one optimiser holds all images. So in this step, the images of the other classes move by their
    momentum, too, as published. IDC-1 is ``idc`` with ``images.factor`` 1.

    Stored images have pixels in [0, 1] in IDC, and are normalised in DC. ``images.lr`` of IDC is for IPC 10: it is
    multiplied by IPC / 10. Gradient matching takes one device.

    Args:
        algorithm: ``dc`` or ``idc``.
        published: Take the published settings of IDC for this data set where a setting is not given.
        metric: Distance of the gradients; by default ``rowwise`` for DC and ``l1`` for IDC. ``features`` compares the
            mean features of the last block instead (IDC's form of distribution matching).
        training: How the network is trained.
        **settings: Settings of :class:`~dgs_lightning.tasks.learned_images.LearnedImages`.

    Raises:
        InputError: If a number is out of its range, a name is unknown, or settings do not go together.

    Examples:
        >>> GradientMatchingTask("dc").lr, GradientMatchingTask("idc", published="cifar10").lr
        (0.1, 0.005)
    """

    def __init__(
        self,
        algorithm: Literal["dc", "idc"] = "dc",
        published: Published | None = None,
        metric: Metric | None = None,
        training: NetworkSettings = NetworkSettings(),
        **settings: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**settings)
        self.idc = algorithm == "idc"
        self.NORMALISED, self.START = not self.idc, "first" if self.idc else "real"
        self.draws = Draws(self.hparams["seed"], in_turn=self.idc)
        published_training = training_of_idc(self.schedule) if self.idc else training_of_dc(self.learned.ipc)
        self.fitting = NetworkSettings.of(training).completed(published_training)
        self.state: NetworkState | None = None
        self._restored: dict[str, Any] | None = None

    @classmethod
    def check_combination(cls, settings: Mapping[str, Any]) -> None:
        """Check also what belongs to one algorithm alone."""
        super().check_combination(settings)
        idc, published = settings["algorithm"] == "idc", settings["published"]
        if published and not idc:
            raise InputError.setting("published", published, "nothing: it is for algorithm idc", "Remove it")
        images = settings["images"]
        if idc and not published and images["lr"] is None:
            raise InputError.unset("images.lr", "a learning rate for IPC 10, or published: a data set", "0.0001")
        if not idc and images["factor"] > 1:
            raise InputError.setting("images.factor", images["factor"], "1 for algorithm dc", "Set algorithm to idc")

    # ---- settings that have published values ---------------------------------------------------------------------

    @property
    def schedule(self) -> IDCSchedule:
        """Published settings of IDC."""
        return idc_schedule(self.hparams["published"] or LIKE, self.learned.ipc, self.learned.factor)

    @property
    def lr(self) -> float:
        """Learning rate of the images."""
        own = self.learned.lr
        if not self.idc:
            return DC_LR if own is None else own
        return self.schedule.rate if own is None else own * self.learned.ipc / 10

    @property
    def range(self) -> str:
        """When pixels are moved into [0, 1]."""
        return self.learned.range or ("network" if self.idc else "step")

    @property
    def batch_real(self) -> int:
        """Real images of a class in a step."""
        return self.hparams["batch_real"] or (self.schedule.batch if self.idc else 256)

    @property
    def strategy(self) -> tuple[str, ...]:
        """Operations of the augmentation."""
        own: tuple[str, ...] | None = self.hparams["augmentation"]
        return (self.schedule.augmentation if self.idc else ()) if own is None else own

    @property
    def metric(self) -> str:
        """Distance of the gradients."""
        return self.hparams["metric"] or (self.schedule.metric if self.idc else "rowwise")

    @property
    def layers(self) -> tuple[int, ...]:
        """Parameters whose gradients count, by their number of dimensions."""
        if self.idc:
            return CONVOLUTIONS
        return WEIGHTS if self.metric == "rowwise" else EVERY_LAYER

    # ---- a round -------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take the images to start from.

        Raises:
            InputError: If a class has too few of them, the precision is too low, or there are several devices.
        """
        if (devices := self.trainer.world_size) > 1:
            raise InputError.setting("devices", devices, "1 for gradient matching", "Set trainer.devices to 1")
        super().setup(stage)

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One round."""
        step = self.global_step
        number, place = divmod(step, self.fitting.rounds)
        if place == 0:
            self.state = self._new_state(number)
            if self.range == "network":
                self.project()
            self._train_early(number)
        elif self.state is None:
            self.state = self._restored_state(number)
        losses = self._idc_round(step) if self.idc else self._dc_round(step)
        if self.idc:
            self._train_on_real(step)
        elif place + 1 < self.fitting.rounds:
            self._train_on_stored(step)
        self.log_losses(losses)

    def _dc_round(self, step: int) -> Tensor:
        """One step on all images."""
        gradient, losses = torch.zeros_like(self.images), []
        for number in range(len(self.labels)):
            loss, gradient[self.rows(number)] = self._match(number, step)
            losses.append(loss)
        self.take_step(gradient)
        return torch.stack(losses)

    def _idc_round(self, step: int) -> Tensor:
        """A step for each class, on the images of all classes: those of the others move by their momentum."""
        losses, last = [], len(self.labels) - 1
        for number in range(len(self.labels)):
            gradient = torch.zeros_like(self.images)
            loss, gradient[self.rows(number)] = self._match(number, step)
            losses.append(loss)
            self.take_step(gradient, counted=number == last)
        return torch.stack(losses)

    def _match(self, number: int, step: int) -> tuple[Tensor, Tensor]:
        """Distance of a class, and its gradient with respect to the stored images of the class."""
        label, positions = self.labels[number], self.data.positions[number]
        if self.idc:
            chosen = self.draws.in_passes(label, len(positions), self.batch_real, step)
        else:
            chosen = self.draws.real(label, len(positions), self.batch_real, step)
        stored = self.images[self.rows(number)].detach().requires_grad_()
        draws = self.draws.augmentation(self.strategy, self.side, label, step)
        real = apply(self.real(positions[chosen])[0], draws)
        loss = self._distance(real, apply(self._synthetic(stored, label, step), draws), number)
        return loss.detach(), torch.autograd.grad(loss, stored)[0]

    def _synthetic(self, stored: Tensor, label: str, step: int) -> Tensor:
        """Normalised images of a class, from its stored ones."""
        if not self.idc:
            return stored
        factor, bound = self.learned.factor, self.schedule.bound
        images, _ = decode(stored, factor) if bound is None else decode_bounded(stored, factor, bound)
        some = self.draws.some(label, len(images), BATCH_STORED, step).to(images.device)
        return normalise(images[some], self.mean, self.std)

    def _distance(self, real: Tensor, synthetic: Tensor, number: int) -> Tensor:
        """Distance of the gradients, or of the features, on real and synthetic images of a class."""
        network = self._state.network
        if self.metric == "features":
            with torch.no_grad():
                target = feature_map(network, real)
            return mean_embedding_distance(target, feature_map(network, synthetic))
        parameters = [each for each in network.parameters() if each.dim() in self.layers]

        def gradients(images: Tensor, create_graph: bool) -> tuple[Tensor, ...]:
            classes = torch.full((len(images),), number, device=images.device)
            loss = F.cross_entropy(network(images), classes)
            return torch.autograd.grad(loss, parameters, create_graph=create_graph)

        return gradient_distance(gradients(real, False), gradients(synthetic, True), self.metric, self.layers)

    # ---- the network ---------------------------------------------------------------------------------------------

    @property
    def _state(self) -> NetworkState:
        assert self.state is not None
        return self.state

    def _new_state(self, number: int) -> NetworkState:
        """A new network and its optimiser.

        Raises:
            InputError: If it has batch norm, of which DC would need statistics of its own.
        """
        network = self.new_network(number)
        if not self.idc and has_batch_norm(network):
            found, expected = f"{self.hparams['network']}, which has batch norm", "a network without batch norm for dc"
            raise InputError.setting("network", found, expected, "Name another network, such as convnet3")
        return NetworkState(network, self.fitting.optimizer(network))

    def _train_early(self, number: int) -> None:
        """Train a new network of IDC on all real images."""
        for place in range(self.fitting.early * self.fitting.batches(self.data.train_images)):
            self._train_on_batch(f"early {number}", place)

    def _train_on_real(self, step: int) -> None:
        """Train the network of IDC on the next batches of real images, on none more than once."""
        count = min(self.fitting.batches(self.fitting.seen), self.fitting.batches(self.data.train_images))
        for place in range(step * count, (step + 1) * count):
            self._train_on_batch("network", place)

    def _train_on_batch(self, name: str, place: int) -> None:
        """Train the network on a batch of real images, augmented one by one and mixed by CutMix."""
        size = self.data.train_images
        positions = self.draws.in_passes(name, size, self.fitting.batch_size, place, whole=False)
        images, classes = self.real(positions)
        strategy = [entry for entry in self.strategy if entry != "cutout"]
        draws = self.draws.augmentation(strategy, self.side, name, place, count=len(images))
        images, partners, own = apply(images, draws), classes, 1.0
        if draw := self.draws.cutmix(self.fitting.cutmix, len(images), self.side, name, place):
            images, own = cutmix(images, draw)
            partners = classes[draw.partners.to(classes.device)]
        self._state.step(mixed_cross_entropy(self._state.network(images), classes, partners, own, 0.0))

    def _train_on_stored(self, step: int) -> None:
        """Train the network of DC on the stored images."""
        images, name, size = self.images.detach(), f"stored {step}", self.fitting.batch_size
        for place in range(self.fitting.epochs * self.fitting.batches(len(images))):
            chosen = self.draws.in_passes(name, len(images), size, place, whole=False).to(images.device)
            draws = self.draws.augmentation(self.strategy, self.side, name, place, count=len(chosen))
            logits = self._state.network(apply(images[chosen], draws))
            self._state.step(F.cross_entropy(logits, chosen // self.learned.ipc))

    # ---- resume --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the network and its optimiser, too."""
        if self.state is not None:
            network, optimizer = self.state
            checkpoint["network"] = {"weights": network.state_dict(), "optimizer": optimizer.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the network, too."""
        super().on_load_checkpoint(checkpoint)
        self._restored = checkpoint.get("network")

    def _restored_state(self, number: int) -> NetworkState:
        """Network and optimiser of a checkpoint."""
        if self._restored is None:
            raise InputError.resume("no network")
        state = self._new_state(number)
        state.network.load_state_dict(self._restored["weights"])
        state.optimizer.load_state_dict(self._restored["optimizer"])
        return state
