"""Lightning callbacks: guidance, writers, figures, weight averaging."""
