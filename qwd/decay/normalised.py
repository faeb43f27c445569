"""Which weights do not set the scale of their layer's output, because normalisation follows."""

from torch import nn

from qwd.decay.kinds import is_norm, parameter_kinds
from qwd.errors import UsageError
from qwd.graphs import UntraceableError, traced


def normalised_weights(model: nn.Module) -> set[str]:
    """Names of the weights of layers whose output goes into a normalisation layer.

    The scale of such a weight changes nothing but its own effective learning rate (van Laarhoven
    2017). Read from the graph that torch.fx traces; raises UsageError where it cannot.
    """
    modules = dict(model.named_modules())
    try:
        graph = traced(model)
    except UntraceableError as error:
        raise UsageError(
            f"--lr-corrected auto: {error}; name the weights by a regular expression"
        ) from None
    layers = {
        str(before.target)
        for node in graph.nodes
        if node.op == "call_module" and is_norm(modules[node.target])
        for before in node.all_input_nodes[:1]
        if before.op == "call_module"
    }
    kinds = parameter_kinds(model)
    return {
        name
        for name, kind in kinds.items()
        if kind in ("weight", "depthwise") and name.rpartition(".")[0] in layers
    }
