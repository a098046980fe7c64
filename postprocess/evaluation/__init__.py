"""How good predictions are: ground truth, protocols, mAP, diagnosis."""
