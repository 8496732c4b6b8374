"""Lightning callbacks: guidance, writers, checkpoints, weight averaging."""
