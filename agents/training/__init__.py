"""Training: recipes, the loop, run directories, checkpoints."""
