"""The mathematics of selection: difficulty, smoothing, sampling distributions and coresets."""
