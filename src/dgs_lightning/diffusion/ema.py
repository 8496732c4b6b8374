"""The exponential moving average of the parameters that are trained."""

from collections.abc import Mapping

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    r"""Exponential moving average of some tensors, :math:`\bar\theta \leftarrow d \bar\theta + (1 - d) \theta`.

    Args:
        parameters: The tensors by name. They are read at each update, so they must be changed in place.
        start: Averages to start from, by the same names; by default the parameters.

    Attributes:
        averages: The averages by name, each with the type and device of its parameter.

    Raises:
        KeyError: If ``start`` lacks one of the names.
    """

    def __init__(self, parameters: Mapping[str, Tensor], start: Mapping[str, Tensor] | None = None) -> None:
        start = start or parameters
        self.averages = {name: start[name].detach().to(p, copy=True) for name, p in parameters.items()}
        self._parameters = list(parameters.values())

    def update(self, decay: float) -> None:
        """Move the averages towards the parameters by one step.

        Args:
            decay: The share of the average that stays, in [0, 1).
        """
        move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        move(list(self.averages.values()), self._parameters, None)


def decay_of_horizon(horizon: float, steps: float) -> float:
    """Decay of an average over a share ``horizon`` of a run's steps: ``1 - 1 / (horizon * steps)``, at least 0."""
    return max(0.0, 1 - 1 / (horizon * steps))
