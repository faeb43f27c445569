"""The arithmetic against torch.ao's observers and onnxruntime's kernels."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from onnx import TensorProto, helper
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver

from qwd.quantize.arithmetic import quantize

from .draws import rows, seeds, several

FLOOR = torch.finfo(torch.float32).eps
"""torch.ao's smallest scale, 1.19e-7"""


def observed(observer_class, w, qscheme, **options):
    observer = observer_class(dtype=torch.qint8, qscheme=qscheme, **options)
    observer(w)
    scale, zero_point = observer.calculate_qparams()
    return scale, zero_point


def quantize_linear() -> onnxruntime.InferenceSession:
    """One QuantizeLinear and one DequantizeLinear node, per row, scale and zero point given."""
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["w", "scale", "zero_point"], ["q"], axis=0),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero_point"], ["v"], axis=0),
        ],
        "both",
        [
            helper.make_tensor_value_info("w", TensorProto.FLOAT, ["c", "n"]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, ["c"]),
            helper.make_tensor_value_info("zero_point", TensorProto.INT8, ["c"]),
        ],
        [
            helper.make_tensor_value_info("q", TensorProto.INT8, ["c", "n"]),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["c", "n"]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


SESSION = quantize_linear()
QSCHEMES = {
    "affine": (torch.per_tensor_affine, torch.per_channel_affine),
    "symmetric": (torch.per_tensor_symmetric, torch.per_channel_symmetric),
}


@pytest.mark.parametrize("kind", ["affine", "symmetric"])
@settings(several, max_examples=20)
@given(seed=seeds)
def test_scale_and_zero_point_are_torch_aos(kind, seed):
    w = rows(seed)
    ours = quantize(w, kind=kind, axis=0)
    above = ours.scale > FLOOR
    assert above.float().mean() > 0.8
    scale, zero_point = observed(PerChannelMinMaxObserver, w, QSCHEMES[kind][1], ch_axis=0)
    assert torch.equal(ours.scale[above], scale.double()[above])
    assert torch.equal(ours.zero_point[above], zero_point.long()[above])
    for row in w[above][:40]:
        scale, zero_point = observed(MinMaxObserver, row, QSCHEMES[kind][0])
        one = quantize(row, kind=kind)
        assert float(one.scale) == scale.item()
        assert int(one.zero_point) == zero_point.item()


@pytest.mark.parametrize("kind", ["affine", "symmetric"])
@several
@given(seed=seeds)
def test_codes_and_values_are_onnxruntimes(kind, seed):
    w = rows(seed, least=1e-28)
    ours = quantize(w, kind=kind, axis=0)
    codes, values = SESSION.run(
        None,
        {
            "w": w.numpy(),
            "scale": ours.scale.float().numpy(),
            "zero_point": ours.zero_point.to(torch.int8).numpy(),
        },
    )
    np.testing.assert_array_equal(ours.codes.numpy(), codes)
    np.testing.assert_array_equal(ours.values.numpy(), values)


# Quantized tensors are on their way out of torch; here they are what qwd is compared with.
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor.*are deprecated:UserWarning")
@several
@given(seed=seeds)
def test_codes_are_torch_quantize_per_tensors_except_at_ties(seed):
    for w in rows(seed, count=60):
        ours = quantize(w, kind="affine")
        if ours.scale <= FLOOR:
            continue
        theirs = torch.quantize_per_tensor(
            w, float(ours.scale), int(ours.zero_point), torch.qint8
        ).int_repr()
        apart = ours.codes - theirs
        assert apart.abs().max() <= 1
        position = w.double() / ours.scale
        from_tie = (position - position.floor() - 0.5).abs()[apart != 0]
        assert (from_tie < 1e-4).all()


def test_where_qwd_differs_from_torch_ao_on_purpose():
    """torch.ao floors the scale, and loses ranges that float32 cannot subtract or divide."""
    # The floor: weights below 1.5e-5 share codes they need not share; qwd keeps them apart.
    small = torch.linspace(-1e-6, 1e-6, 256)
    scale, _ = observed(MinMaxObserver, small, torch.per_tensor_affine)
    ours = quantize(small, kind="affine")
    assert scale.item() == FLOOR
    assert float(ours.scale) == pytest.approx(2e-6 / 255)
    assert len(ours.codes.unique()) > 250
    assert len(torch.fake_quantize_per_tensor_affine(small, FLOOR, 0, -128, 127).unique()) == 17

    # Overflow: b - a is infinite in float32, so torch's scale is too.
    large = torch.tensor([-3e38, 1e38, 3e38])
    scale, _ = observed(MinMaxObserver, large, torch.per_tensor_affine)
    ours = quantize(large, kind="affine")
    assert scale.isinf()
    assert float(ours.scale) == pytest.approx(6e38 / 255)
    assert ours.values.dtype == torch.float64
    torch.testing.assert_close(ours.values, large.double(), rtol=0, atol=3e38 / 255 * 1.001)

    # Subnormal: float32 has 2^-149 and its multiples there, 2.4 % of this scale.
    subnormal = torch.tensor([-5e-42, 0.0, 1e-42, 1e-41])
    ours = quantize(subnormal, kind="affine")
    span = float(subnormal.double().max() - subnormal.double().min())
    assert float(ours.scale) == span / 255
    assert len(ours.codes.unique()) == 4
    # One such channel leaves the others as they are.
    both = torch.stack([subnormal, torch.tensor([-1.0, 0.0, 0.3, 2.0])])
    together = quantize(both, kind="affine", axis=0)
    alone = quantize(both[1], kind="affine")
    assert torch.equal(together.codes[0], ours.codes)
    assert torch.equal(together.codes[1], alone.codes)
    assert torch.equal(together.values[1], alone.values.double())
