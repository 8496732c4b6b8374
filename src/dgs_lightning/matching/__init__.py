"""The mathematics of matching methods (DM, DC, DSA, IDC): distances, siamese augmentation, formations, schedules."""
