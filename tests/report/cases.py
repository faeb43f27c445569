"""Reports that every renderer has to take."""

from qwd.report.figures import Comparison, DeployedReport, Report

from .builders import figures, group, model, report, scheme, several, tensor, weights_only

HOSTILE = (
    "[bold]x[/bold] [/] |`*_<b>&amp;</b>_*`| \\| :smile: ~~$x$~~ #1\r\n\x1b[31m\u202e\ud800 !["
)
CASES = {
    "one model": report(),
    "several models": several(3),
    "many models": several(9),
    "several without comparison": report(*several(6).models),
    "weights only": report(weights_only()),
    "no tensors": report(model(tensors=(), deployed=(), schemes={})),
    "no models": Report(models=()),
    "an empty comparison": Report(models=(), comparison=Comparison(groups=(), readings=())),
    "figures that do not exist": report(
        model(
            tensors=(
                tensor(
                    sqnr=None,
                    figures=figures(
                        a=None, range=None, std=None, range_over_std=None, sqnr_db=None, outliers={}
                    ),
                ),
            )
        )
    ),
    "hostile names": Report(
        models=(
            model(
                HOSTILE,
                schemes={HOSTILE: scheme(left_float=(HOSTILE,) * 5, engine=HOSTILE)},
                tensors=(tensor(HOSTILE, figures=figures(outliers={HOSTILE: 1})),),
                deployed=(DeployedReport(name=HOSTILE, sources=(HOSTILE,), figures=figures()),),
                warnings=(HOSTILE,),
            ),
        ),
        comparison=Comparison(groups=(group(HOSTILE, (HOSTILE,)),), readings=(HOSTILE,)),
    ),
}
