"""An average over the weights of all training steps. The weights of the last step alone are one random draw of many."""

import torch
from torch import Tensor, nn


class Average:
    """Polynomial-decay average (Shamir & Zhang, ICML 2013, section 4) of a network's parameters.

    After step t, counted from 1, it is mean += (eta + 1) / (t + eta) * (weights - mean), so the weights of step i count
    about as much as i^eta. The update does not depend on the total number of steps, so a training can be prolonged.
    With eta 3 the mean age of the averaged weights is a fifth of the training.

    Attributes:
        eta: exponent of the decay, above 0.
        mean: name of a parameter → its average so far, on the parameter's device.
    """

    def __init__(self, net: nn.Module, eta: float) -> None:
        self.eta = eta
        self.mean: dict[str, Tensor] = {name: p.detach().clone() for name, p in net.named_parameters()}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Add the weights after step `step`; the first step is 1."""
        share = (self.eta + 1) / (step + self.eta)
        for name, parameter in net.named_parameters():
            self.mean[name].lerp_(parameter, share)

    @torch.no_grad()
    def apply(self, net: nn.Module) -> None:
        """Copy the average into the network."""
        for name, parameter in net.named_parameters():
            parameter.copy_(self.mean[name])
