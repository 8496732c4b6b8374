"""An experiment: its settings, the plan of its stages, and the run that works through them."""
