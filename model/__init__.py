"""JCDNet: architecture, checkpoints, prediction."""
