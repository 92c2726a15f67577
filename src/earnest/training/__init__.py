"""What concerns share when they train: recipes with stages, checkpoints, optimisers."""
