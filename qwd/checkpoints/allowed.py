"""The names that a pickle may mention, and how others are called in the error line.

torch's weights_only unpickler allows more: functions that rebuild sparse, quantized, meta, nested
and wrapped tensors from numbers of the file, that set attributes of a tensor, that make byte
arrays of any length, sets and encoded bytes. No float state dict needs them.
"""

from qwd.checkpoints.claims import DTYPES, STORAGES

ORDERED, COUNTER = "collections OrderedDict", "collections Counter"
SIZE, DEVICE, PARAMETER = "torch Size", "torch device", "torch.nn.parameter Parameter"
REBUILD_0 = "torch._utils _rebuild_tensor"
REBUILD_2 = "torch._utils _rebuild_tensor_v2"
REBUILD_3 = "torch._utils _rebuild_tensor_v3"
REBUILD_PARAMETER = "torch._utils _rebuild_parameter"

ALLOWED = frozenset(
    {
        ORDERED,
        COUNTER,  # milestones of a MultiStepLR
        SIZE,
        DEVICE,
        PARAMETER,
        REBUILD_0,
        REBUILD_2,
        REBUILD_3,
        REBUILD_PARAMETER,
        *STORAGES,
        *DTYPES,
    }
)

NAMED = {
    "torch._utils _rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils _rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils _rebuild_qtensor": "a quantized tensor",
    "torch._utils _rebuild_meta_tensor_no_storage": "a meta tensor, which has no values",
    "torch._utils _rebuild_nested_tensor": "a nested tensor",
    "torch._utils _rebuild_parameter_with_state": "a parameter with attributes",
    "torch._utils _rebuild_wrapper_subclass": "a tensor of a subclass",
    "torch._tensor _rebuild_from_type_v2": "a tensor of a subclass or with attributes",
    "torch.distributed.tensor DTensor": "a tensor spread over machines",
}


def refusal(name: str) -> str:
    """What is said of a pickle that mentions ``name``, module and name with a space between."""
    dotted = name.replace(" ", ".")
    if name in NAMED:
        return f"it holds {NAMED[name]} ({dotted})"
    if "QInt" in name or "QUInt" in name:
        return f"it holds a quantized tensor ({dotted})"
    if dotted.startswith(("torch.nn.modules.", "torch.nn.parallel.", "torch.fx.", "torch.jit.")):
        return f"it holds a whole pickled module ({dotted}), which is code"
    return f"it holds an object of {dotted}, neither tensor nor plain container"
