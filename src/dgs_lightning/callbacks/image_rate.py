"""Speed of the generation."""

import logging
import time

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

_log = logging.getLogger(__name__)


class ImageRate:
    """Shows images a second on the progress bar. Without a bar, logs a line with images a second and the time left.

    Args:
        total: Images to generate.
        every: Seconds between two lines of the log.
    """

    def __init__(self, total: int = 0, every: float = 30.0) -> None:
        self.total = total
        self._every = every
        self._done = 0
        self._start = self._logged = time.monotonic()

    def advance(self, images: int, trainer: L.Trainer) -> None:
        """Count images, and show the speed."""
        self._done = min(self._done + images, self.total)
        now = time.monotonic()
        rate = self._done / max(now - self._start, 1e-9)
        bar = trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar):
            bar.predict_progress_bar.set_postfix_str(f"{rate:.1f} images/s")
        elif isinstance(bar, RichProgressBar) and bar.progress and bar.predict_progress_bar_id is not None:
            bar.progress.update(bar.predict_progress_bar_id, description=f"{rate:.1f} images/s")
        elif trainer.is_global_zero and now - self._logged >= self._every:
            self._logged = now
            left = round((self.total - self._done) / rate)
            _log.info("%d of %d images, %.1f images/s, %d s left", self._done, self.total, rate, left)
