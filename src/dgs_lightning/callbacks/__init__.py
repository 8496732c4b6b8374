"""Lightning callbacks: guidance, writers, checkpoints, sample grids."""
