"""Checkpoints side by side: the same tensors in a row."""

from dataclasses import replace

from qwd.report.render import text

from .builders import figures, model, report, tensor, weights_only


def test_tensors_are_matched_by_name_the_most_different_first():
    same, other = tensor("same", folded=None), tensor("other", folded=None)
    changed = replace(other, figures=figures(sqnr_db=20.0, range=3.0))
    first = replace(weights_only("a.pt"), tensors=(same, other, tensor("alone")))
    second = replace(weights_only("b.pt"), tensors=(same, changed))
    page = text.render(report(first, second), width=100)
    part = page[page.index("Tensor by tensor") :].splitlines()
    assert part[2].split() == ["tensor", "as", "deployed", "a.pt", "b.pt"]
    assert part[4].split() == ["other", "range", "0.8960", "3.000"]
    assert part[6].split() == ["SQNR", "dB", "41.20", "20.00"]
    assert part[7].split() == ["same", "range", "0.8960", "0.8960"]
    assert "1 tensors are not in every checkpoint." in page
    short = text.render(report(first, second), width=100, top=1)
    assert "The 1 of 2 tensors whose SQNR differs most; --top N shows more." in short


def test_runs_and_strangers_are_not_matched():
    assert "Tensor by tensor" not in text.render(report(model("a"), model("b")))
    strangers = [replace(weights_only(n), tensors=(tensor(n),)) for n in ("a", "b")]
    assert "Tensor by tensor" not in text.render(report(*strangers))


def test_a_prefix_that_all_names_have_hides_nothing():
    plain = replace(weights_only("a.pt"), tensors=(tensor("conv.weight"), tensor("fc.weight")))
    wrapped = tuple(tensor(f"model.{t.name}") for t in plain.tensors)
    page = text.render(report(plain, replace(plain, name="b.ckpt", tensors=wrapped)), width=100)
    part = page[page.index("Tensor by tensor") :].splitlines()
    assert part[4].split() == ["conv.weight", "range", "0.4650", "0.4650"]
    assert "not in every checkpoint" not in page


def test_other_shapes_are_said():
    first = replace(weights_only("a.pt"), tensors=(tensor("fc.weight", folded=None),))
    other = tensor("fc.weight", folded=None, figures=figures(shape=(100, 16)))
    page = text.render(report(first, replace(first, name="b.pt", tensors=(other,))), width=100)
    assert "1 tensors do not have the same shape in every checkpoint." in page
    assert "the same shape" not in text.render(report(first, replace(first, name="b.pt")))
