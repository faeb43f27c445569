"""Quantize and dequantize in one step: what a grid of codes leaves of a tensor, in float."""

import torch
from torch import Tensor, nn


class FakeQuantize(nn.Module):
    """Moves a tensor to a grid with a zero point.

        x' = (clamp(round(x / scale) + zero_point, qmin, qmax) - zero_point) * scale

    round is half to even, the division is in float32, as in onnxruntime's QuantizeLinear.
    ``scale`` float32 and ``zero_point`` int64 are 0-d, or [C] along ``axis``. In `qwd` a network
    whose activations pass through such modules, and whose weights are parametrized by them
    (`torch.nn.utils.parametrize`), is the form in which quantized networks go from one library to
    another.
    """

    def __init__(
        self, scale: Tensor, zero_point: Tensor, *, qmin: int, qmax: int, axis: int | None = None
    ):
        super().__init__()
        self.register_buffer("scale", scale.detach().clone().to(torch.float32))
        self.register_buffer("zero_point", zero_point.detach().clone().to(torch.int64))
        self.qmin, self.qmax, self.axis = qmin, qmax, axis

    scale: Tensor
    zero_point: Tensor

    def codes(self, x: Tensor) -> Tensor:
        """q as float32, shape of ``x``."""
        scale, zero_point = self._broadcast(self.scale, x), self._broadcast(self.zero_point, x)
        return ((x / scale).round() + zero_point).clamp(self.qmin, self.qmax)

    def forward(self, x: Tensor) -> Tensor:
        """x', shape and dtype of ``x``."""
        scale, zero_point = self._broadcast(self.scale, x), self._broadcast(self.zero_point, x)
        return (self.codes(x) - zero_point) * scale

    def _broadcast(self, tensor: Tensor, x: Tensor) -> Tensor:
        if self.axis is None:
            return tensor
        return tensor.reshape([-1 if d == self.axis else 1 for d in range(x.ndim)])
