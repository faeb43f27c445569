"""Reading and writing files of weights, which may come from a stranger.

`read_weights`        the named tensors of a checkpoint: one file, or a folder of shards
`read_pickle`         all that a file of torch.save holds; its module has the threat model
`read_safetensors`    tensors and metadata of a safetensors file
`write_weights`       a safetensors file with a checksum of each tensor; `pack_weights` its bytes
`models_in`           the checkpoints of a folder
"""

from qwd.checkpoints.reading import ENDINGS, PICKLED, models_in, read_weights
from qwd.checkpoints.safetensors_file import pack_weights, read_safetensors, write_weights
from qwd.checkpoints.torch_file import read_pickle

__all__ = [
    "ENDINGS",
    "PICKLED",
    "models_in",
    "pack_weights",
    "read_pickle",
    "read_safetensors",
    "read_weights",
    "write_weights",
]
