"""A network as torch.export records it, for any number of images."""

from typing import Any

import torch
from torch import Tensor, nn


def exported_program(network: nn.Module, example: Tensor, *, strict: bool = False) -> Any:
    """The ``torch.export.ExportedProgram`` of a network in eval mode.

    ``example`` is a batch of images [N, C, H, W]: N stays free, the other dimensions are fixed.
    ``strict`` reads the network's Python, which fewer networks bear, and notes for every operator
    which module or function it is of. Raises what torch.export and the user's forward raise.
    """
    # A batch of one would be taken for a constant.
    images = example[:2] if len(example) > 1 else example[:1].expand(2, *example.shape[1:])
    batch = {0: torch.export.Dim("N", min=1)}
    with torch.no_grad():
        return torch.export.export(
            network, (images.clone(),), dynamic_shapes=(batch,), strict=strict
        )
