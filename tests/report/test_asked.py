"""Schemes that a report is asked for: those that could never run are wrong use."""

import re

import pytest

from qwd.errors import UsageError
from qwd.quantize.schemes import DEFAULT_SCHEMES
from qwd.report.asked import asked_schemes


def names(*asked: str, backends: tuple[str, ...] = (), bits: tuple[int, ...] = (8,)) -> list[str]:
    return [scheme.name for scheme in asked_schemes(asked, backends, bits)]


def test_without_a_name_the_default_schemes() -> None:
    assert asked_schemes((), (), (8,)) == DEFAULT_SCHEMES


@pytest.mark.parametrize(
    ("asked", "backends", "bits", "said"),
    [
        (["affine-tensor-w8-a4@ao"], [], [8], "--scheme affine-tensor-w8-a4@ao: .*8-bit activ"),
        (["minmax-tensor-w8-a8@onnx"], [], [8], "ONNX Runtime runs affine and symmetric weights"),
        (["affine-tensor-w8-a8@pt2e"], [], [8], "PT2E takes symmetric weights only"),
        (["symmetric-channel-w4-a8@pt2e"], [], [8], "PT2E takes 8-bit weights"),
        (["affine-tensor@simulated"], [], [8], "weights alone run on the backend 'weights'"),
        (["affine-tensor-w8-a8@weights"], [], [8], "quantizes weights alone"),
        (["ao-static"], ["ao:onednn"], [8], "--scheme ao-static on ao:onednn: oneDNN takes symm"),
        (["ao-static"], ["pt2e"], [8, 4], "--scheme ao-static on pt2e: PT2E takes symmetric"),
        ([], ["ao:foo"], [8], "--backend ao:foo: torch.ao has no engine 'foo'; it has x86"),
        ([], ["onnx:foo"], [8], "--backend onnx:foo: .*no engine 'foo'; it has cpu"),
        ([], ["simulated:foo"], [8], "no engine 'foo'; it has none"),
        ([], ["pt2e:foo"], [8], "PT2E takes symmetric|no engine 'foo'"),
        (["affine-tensor@weights:foo"], [], [8], "no engine 'foo'; it has none"),
    ],
)
def test_what_no_network_can_have_is_wrong_use(asked, backends, bits, said: str) -> None:
    with pytest.raises(UsageError) as found:
        asked_schemes(asked, backends, bits)
    assert re.search(said, str(found.value))
    assert "\n" not in str(found.value)


def test_a_backend_that_has_some_of_the_schemes_is_not() -> None:
    found = names(backends=("pt2e",))
    assert "pt2e-default" in found
    assert names("ao-static", "ao-default", backends=("ao:qnnpack",))
    assert names("symmetric-tensor-w8-a8@simulated", bits=(8, 4)) == [
        "symmetric-tensor-w8-a8@simulated",
        "symmetric-tensor-w4-a8@simulated",
    ]
