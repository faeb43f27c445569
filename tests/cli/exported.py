"""What the tests of `qwd export` share: a run's name, and readers that know nothing of qwd."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper

from qwd.train.data import ArraySplit, load

RUN = "runs/small_cnn-digits-wd1e-4-s0"

DEPLOYER = """
import sys
for name in ("torch", "onnx", "onnxscript", "qwd", "scipy", "safetensors", "sklearn"):
    sys.modules[name] = None
import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
pixels, labels = (np.load(path) for path in sys.argv[2:])
mean, std = (np.array(json.loads(facts[k]))[:, None, None] for k in ("mean", "std"))
images = ((pixels - mean) / std).astype(np.float32)
assert list(images.shape[1:]) == json.loads(facts["input_shape"])[1:]
right = 0
for size in (1, 7, len(images)):
    (logits,) = session.run(["logits"], {"images": images[:size]})
    assert logits.shape == (size, len(json.loads(facts["classes"])))
    right = int((logits.argmax(1) == labels[:size]).sum())
print(right)
"""


def right_elsewhere(file: Path, folder: Path) -> int:
    """How many test images an ONNX file gets right where only numpy and onnxruntime are."""
    test = load("digits").test
    assert isinstance(test, ArraySplit)
    np.save(folder / "pixels.npy", test.pixels.images[test.rows.numpy()] / test.pixels.white)
    np.save(folder / "labels.npy", test.labels.numpy())
    (folder / "deploy.py").write_text(DEPLOYER)
    command = [sys.executable, "deploy.py", str(file), "pixels.npy", "labels.npy"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout)


def graph_grids(model: Any) -> dict[str, tuple[list[float], list[int]]]:
    """Scale and zero point of every stored weight, as a reader of the graph alone finds them."""
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    return {
        node.input[0]: (
            np.atleast_1d(values[node.input[1]]).astype(float).tolist(),
            np.atleast_1d(values[node.input[2]]).tolist(),
        )
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in values
        and values[node.input[0]].dtype == np.int8
    }
