"""Commands: LightningCLI over the tasks, and a function for each of the others."""
