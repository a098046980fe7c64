"""JCDNet: the network, its settings, training, checkpoints and prediction."""
