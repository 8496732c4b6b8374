"""A GPU that is not there: tensors on it have shapes, types and a device, but no values (torch's ``FakeTensorMode``).

An operation on tensors of two devices fails as it would on a real GPU. What only the CPU sees is computed as always.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree
from torchmetrics import Metric, MetricCollection

GPU = torch.device("cuda:0")
_INDEXED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default)


class _Mode(FakeTensorMode):  # type: ignore[no-untyped-call]
    """Fakes the operations in which the GPU takes part, and no others: schedules and data keep their values."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self._within = False  # an operation that is faked

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        given = (args, kwargs or {})
        if not self._within and not any(map(_is_on_gpu, _pytree.tree_leaves(given))):
            return function(*given[0], **given[1])
        if function in _INDEXED and args[0].device.type == "cpu":  # FakeTensorMode does not look at these
            assert not any(index is not None and index.device == GPU for index in args[1]), "an index of another device"
        args, kwargs = _pytree.tree_map_only(
            Tensor, lambda part: part if isinstance(part, FakeTensor) else self.from_tensor(part), given
        )
        before, self._within = self._within, True
        try:
            return super().__torch_dispatch__(function, types, args, kwargs)
        finally:
            self._within = before


def _is_on_gpu(part: object) -> bool:
    return isinstance(part, FakeTensor) or (isinstance(part, torch.device) and part.type == GPU.type)


class _Accelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        """Nothing: there is no device."""


class FakeGPU(SingleDeviceStrategy):
    """Runs a trainer on the GPU that is not there. Gradients are zero: autograd asks for a driver."""

    def __init__(self) -> None:
        super().__init__(GPU, accelerator=_Accelerator())

    def model_to_device(self) -> None:
        """Move parameters, buffers and metrics."""
        assert self.model is not None
        for module in self.model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    moved = torch.nn.Parameter(parameter.detach().to(GPU), parameter.requires_grad)
                    module._parameters[name] = moved
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.to(GPU)
            if isinstance(module, Metric):
                module.to(GPU)
            if hasattr(module, "_device"):  # what Lightning's modules take for their device
                module._device = GPU  # type: ignore[assignment]

    def backward(self, closure_loss: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Give each trained parameter a gradient."""
        assert closure_loss.requires_grad
        for parameter in cast(pl.LightningModule, self.lightning_module).parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        return closure_loss

    def teardown(self) -> None:
        """Leave everything where it is."""


@contextmanager
def fake_gpu(monkeypatch: Any) -> Iterator[None]:  # noqa: ANN401
    """Let tensors be on the GPU until the block ends. Where Python asks for their values, it gets 1, true or zeros."""

    def zeros(tensor: Tensor) -> Tensor:
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")

    monkeypatch.setattr(fake_tensor, "CONSTANT_NUMEL_LIMIT", 0)  # it would compute with small tensors
    monkeypatch.setattr(FakeTensor, "item", lambda tensor: 1.0)
    monkeypatch.setattr(FakeTensor, "__bool__", lambda tensor: True)
    monkeypatch.setattr(FakeTensor, "tolist", lambda tensor: zeros(tensor).long().tolist())
    monkeypatch.setattr(FakeTensor, "numpy", lambda tensor: zeros(tensor).numpy())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**30))
    one = torch.ones(())
    monkeypatch.setattr(MetricCollection, "update", lambda metrics, *batch: None)  # counts: their shapes follow values
    monkeypatch.setattr(MetricCollection, "compute", lambda metrics: dict.fromkeys(metrics.keys(), one))
    with _Mode():
        yield
