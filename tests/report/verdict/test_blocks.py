"""A verdict on a page: the numbers in their places."""

from dataclasses import replace

from qwd.report.render import markdown, text
from qwd.report.render import verdict as page
from qwd.report.verdict import certified, verdict
from qwd.report.verdict.figures import Certificate, SkippedLayer
from tests.report.builders import weights_only

from .sweeps import run, two_decays


def cells(shown: str, start: str) -> list[str]:
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    return [line for line in lines if line.startswith(start)]


def test_the_primary_family_in_text() -> None:
    found = verdict([*two_decays(), weights_only("a.pt")])
    shown = text.show(page.blocks(found), width=160)
    assert found.settings[0].answer[:60] in shown
    raw, folded, accuracy = cells(shown, "wd 1e-4")[:3]
    change = found.settings[0].contrasts[0].changes[0]
    assert raw == (
        f"wd 1e-4 range, raw more compact {change.reference:#.4g} {change.other:#.4g} "
        f"{change.mean:.2f} %, {change.low:.2f} to {change.high:.2f} 8 5 % 0.023 1"
    )
    assert folded.startswith("wd 1e-4 range, folded equivalent within 5 %")
    assert accuracy.endswith("+0.00 pp, -0.17 to +0.17 8 0.5 pp 1 0.00023")
    assert "for 3 tests, which takes 7 seeds at least" in " ".join(shown.split())
    assert "Left out, of no comparison: a.pt." in shown
    assert (
        "wd 1e-4, int8 accuracy: changes differ by less than a step of 0.5 pp: the interval is"
        in shown
    )


def test_the_exploratory_figures_have_no_verdict() -> None:
    shown = text.show(page.blocks(verdict(two_decays())), width=160)
    (line,) = cells(shown, "sigma>6 per million, folded")
    assert line.startswith("sigma>6 per million, folded 100 per million +0.00 per million, -")
    assert cells(shown, "codes used, raw")
    assert cells(shown, "ao-static.accuracy")


def test_scale_and_shape() -> None:
    shown = text.show(page.blocks(verdict(two_decays())), width=160)
    assert cells(shown, "wd 1e-4 raw")[0].startswith("wd 1e-4 raw 1.0000 1.0000 (1.0000 to")


def test_certificates() -> None:
    found = verdict(two_decays())
    one = Certificate(
        scheme="ao-static",
        seed=3,
        images=10_000,
        changed=2,
        rescaled=17,
        unchanged=1,
        skipped=tuple(SkippedLayer(name=f"conv{i}", reason="dead") for i in range(5)),
    )
    found = certified(found, found.settings[0].name, "wd 1e-4", [one])
    shown = " ".join(text.show(page.blocks(found), width=100).split())
    assert (
        "Certificate (wd 1e-4, seed 3): 2 of 10,000 ao-static predictions change where 17 layers "
        "before BatchNorm are multiplied by the power of two nearest to the ratio of norms; 1 "
        "more have the factor 1; skipped: conv0 (dead), conv1 (dead), conv2 (dead) and 2 more."
    ) in shown


def test_several_settings_have_their_headings_and_names_stay_names() -> None:
    models = two_decays()
    others = [replace(m, config={**(m.config or {}), "lr": 0.5}) for m in models]
    hostile = [replace(m, config={**(m.config or {}), "model": "[b]|*x*\x1b"}) for m in models]
    found = verdict([*models, *others, *hostile])
    shown = text.show(page.blocks(found), width=100)
    assert "small_cnn on digits, lr 0.5" in shown
    assert r"[b]|*x*\x1b on digits" in shown
    assert r"\[b\]\|\*x\*" in markdown.show(page.blocks(found))


def test_few_seeds_are_dashes_not_numbers() -> None:
    shown = text.show(page.blocks(verdict(two_decays(1))), width=160)
    assert cells(shown, "wd 1e-4 range, raw")[0].endswith("no interval 1 5 % - -")
    assert "one pair: no interval" in shown
    none = verdict([run(1e-5, 0), run(1e-4, 1)])
    assert "paired over 0 seeds" in text.show(page.blocks(none), width=160)
