"""From the model of a dashboard to what Grafana reads, by Grafana's own builders."""

import json
from collections.abc import Callable
from typing import Final

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

from flowagg_dashboards.model import Board, Panel, Query

_SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_WITNESS: Final = "flowagg_writer_in_flight_bytes"
"""Every writer has it from its start: the variables find namespaces and names by it."""
_TAG: Final = "flow-aggregator"
_ALERT_TEXTS: Final = {
    "titleFormat": "{{alertname}}",
    "textFormat": "{{component}} {{partition}} {{reason}}",
    "step": "15s",
}
"""Of Prometheus' annotations, which the builders do not know."""

_AnyPanel = stat.Panel | timeseries.Panel | statetimeline.Panel


def rendered(board: Board) -> str:
    """The dashboard as a file of JSON."""
    made = (
        builders.Dashboard(f"FlowAggregator / {board.title}")
        .uid(f"flow-aggregator-{board.name}")
        .description(board.description)
        .tags([_TAG])
        .version(1)
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .timezone("browser")
        .refresh("15s")
        .time("now-1h", "now")
        .link(
            builders.DashboardLink("FlowAggregator")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([_TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .annotation(_alerts())
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("namespace", "Namespace", f"label_values({_WITNESS}, namespace)"))
        .with_variable(
            _variable(
                "instance", "FlowAggregator", f'label_values({_WITNESS}{{namespace="$namespace"}}, flowaggregator)'
            )
        )
    )
    number = 0
    for row in board.rows:
        number += 1
        made.with_row(builders.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            made.with_panel(_panel(panel, number))
    encoded = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    (alerts,) = encoded["annotations"]["list"]
    alerts |= _ALERT_TEXTS
    return json.dumps(encoded, indent=2, sort_keys=True) + "\n"


def _variable(name: str, label: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query({"query": query, "refId": f"{name}-query", "qryType": 1})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def _alerts() -> builders.AnnotationQuery:
    return (
        builders.AnnotationQuery()
        .name("Alerts")
        .datasource(_SOURCE)
        .enable(True)
        .hide(False)
        .icon_color("red")
        .expr('ALERTS{alertname=~"FlowAggregator.+", alertstate="firing", namespace="$namespace"}')
    )


def _panel(panel: Panel, number: int) -> _AnyPanel:
    makers: dict[str, Callable[[Panel], _AnyPanel]] = {
        "stat": _stat,
        "timeseries": _timeseries,
        "state-timeline": _states,
    }
    made = makers[panel.kind](panel)
    made.id(number).title(panel.title).description(panel.description).datasource(_SOURCE)
    made.span(panel.width).height(panel.height).unit(panel.unit).min(0)
    if panel.steps:
        steps = [models.Threshold(value, colour) for value, colour in panel.steps]
        made.thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        made.color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    if panel.words:
        words = {
            str(value): models.ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, (text, colour)) in enumerate(panel.words.items())
        }
        made.mappings([models.ValueMap(words)])
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        made.with_target(_target(query, letter, instant=panel.kind == "stat"))
    return made


def _target(query: Query, letter: str, *, instant: bool) -> prometheus.Dataquery:
    made = prometheus.Dataquery().ref_id(letter).datasource(_SOURCE).expr(query.expr).legend_format(query.legend)
    return made.instant() if instant else made.range()


def _stat(panel: Panel) -> stat.Panel:
    return (
        stat.Panel()
        .color_mode(common.BigValueColorMode.BACKGROUND)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.NAME if panel.names else common.BigValueTextMode.AUTO)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _timeseries(panel: Panel) -> timeseries.Panel:
    stacking = common.StackingMode.NORMAL if panel.stacked else common.StackingMode.NONE
    return (
        timeseries.Panel()
        .draw_style(common.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(20 if panel.stacked else 0)
        .show_points(common.VisibilityMode.NEVER)
        .stacking(common_builders.StackingConfig().mode(stacking).group("A"))
        .legend(_legend())
        .tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
    )


def _states(_: Panel) -> statetimeline.Panel:
    return (
        statetimeline.Panel()
        .show_value(common.VisibilityMode.NEVER)
        .row_height(0.8)
        .merge_values(True)
        .line_width(0)
        .fill_opacity(80)
        .legend(_legend())
    )


def _legend() -> common_builders.VizLegendOptions:
    return (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
