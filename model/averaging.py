"""An average of the weights of all steps in which later ones count more: the last alone are one draw of many."""

import torch
from torch import Tensor, nn


class Average:
    """Polynomial-decay average (Shamir & Zhang, ICML 2013, section 4) of a network's parameters.

    After step t, counted from 1: mean += (eta + 1) / (t + eta) * (weights - mean), so the weights of step i count about
    as i^eta. It knows nothing of how many steps there will be, so a training can be prolonged. With eta 3 its mean age
    is a fifth of the training.

    Attributes:
        eta: of the decay, above 0.
        mean: parameter's name → the average so far, on the parameter's device.
    """

    def __init__(self, net: nn.Module, eta: float) -> None:
        self.eta = eta
        self.mean: dict[str, Tensor] = {name: p.detach().clone() for name, p in net.named_parameters()}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Take in the weights after step `step`, the first being 1."""
        share = (self.eta + 1) / (step + self.eta)
        for name, parameter in net.named_parameters():
            self.mean[name].lerp_(parameter, share)

    @torch.no_grad()
    def apply(self, net: nn.Module) -> None:
        """Put the average into the network."""
        for name, parameter in net.named_parameters():
            parameter.copy_(self.mean[name])
