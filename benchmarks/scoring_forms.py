"""What makes the forward pass of ResNet-50 faster on one core of a CPU, each form beside the network as it is loaded.

    python benchmarks/scoring_forms.py --form [channels_last] [fused] [bfloat16] [compiled] [--batch-size N] [--json]

The network as it is loaded is what a plain loop has: float32, contiguous, batch norm as layers of its own. ``fused``
computes the batch norm in the convolutions before it, by ``torch.fx``. Both take turns on the same batch, on one
thread, and their times are those that the process computes: other work on the machine counts little. The share of the
rate says how near a form is to the rate of large matrix products of its type on the same core, beyond which nothing can
go. The difference is that of the difficulties (Eq. 6), and the preparation is the time until the first batch is done.
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from program import Figures, parser, rates, show
from scoring import sure
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.utils.flop_counter import FlopCounterMode

from dgs_lightning.commands.process import keep_freed_memory
from dgs_lightning.models.registry import build_network
from dgs_lightning.selection.difficulty import confidence_difficulty

FORMS = ("channels_last", "fused", "bfloat16", "compiled")
MATRIX = 2048  # side of the matrices that are multiplied


def changed(network: nn.Module, form: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """The network in another form, from float32 images to logits."""
    if "fused" in form:
        network = fuse(network)
    if "channels_last" in form:
        network = network.to(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if "bfloat16" in form else torch.float32
    network = network.to(dtype)
    if "compiled" in form:
        network.compile()
    return lambda images: network(images.to(dtype))


def seconds_of(function: Callable[[], object]) -> float:
    """Seconds that this process computes in a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def matrix_rate(dtype: torch.dtype, repetitions: int) -> float:
    """Operations a second of matrix products."""
    a, b = (torch.randn(MATRIX, MATRIX).to(dtype) for _ in range(2))
    return 2 * MATRIX**3 / min(seconds_of(lambda: a @ b) for _ in range(repetitions + 1))


@torch.no_grad()
def measure(form: Sequence[str], batch_size: int, side: int, repetitions: int) -> Figures:
    """Images a second of both, and what tells them apart."""
    keep_freed_memory()  # as `dgs predict` does
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.randn(batch_size, 3, side, side)
    plain = sure(build_network("torchvision:resnet50", 1000, side), torch.randn(8, 3, side, side))
    start = time.monotonic()
    own = changed(copy.deepcopy(plain), form)
    logits = own(images)
    preparation = time.monotonic() - start
    expected = plain(images)
    labels = expected.argmax(dim=1)
    apart = (confidence_difficulty(logits, labels) - confidence_difficulty(expected, labels)).abs().max()
    times = [(seconds_of(lambda: own(images)), seconds_of(lambda: plain(images))) for _ in range(repetitions)]
    own_rate, plain_rate = (batch_size / statistics.median(seconds) for seconds in zip(*times, strict=True))
    with FlopCounterMode(display=False) as counter:
        plain(images[:1])
    rate = matrix_rate(torch.bfloat16 if "bfloat16" in form else torch.float32, repetitions)
    return {
        **rates(own_rate, plain_rate),
        "share_of_rate": own_rate * counter.get_total_flops() / rate,
        "largest_difference": float(apart),
        "preparation": preparation,
    }


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--form", choices=FORMS, nargs="*", default=[])
    options.add_argument("--batch-size", type=int, default=16)
    options.add_argument("--side", type=int, default=224, help="side of the images in pixels")
    options.add_argument("--repetitions", type=int, default=5)
    args = options.parse_args(argv)
    show(measure(args.form, args.batch_size, args.side, args.repetitions), args.json)


if __name__ == "__main__":
    main()
