"""The few kinds of panel that our dashboards are made of, all alike in looks and data source."""

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as dashboards
from grafana_foundation_sdk.models import heatmap as heatmaps
from grafana_foundation_sdk.models import prometheus as queries

SOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="motcua-prometheus")

AT_RISK, PROMISE = 900, 1200
"""Seconds of a wait past which the promise is at risk, and broken."""

Steps = Sequence[tuple[float | None, str]]
"""From which value on which colour; None is the lowest."""
WAITS: Final[Steps] = ((None, "green"), (AT_RISK, "orange"), (PROMISE, "red"))
NONE_IS_GOOD: Final[Steps] = ((None, "green"), (1, "red"))


def named(vietnamese: str, english: str) -> str:
    """Write a title: who looks at the hall reads the first half, who was called at night both."""
    return f"{vietnamese} · {english}"


def query(expression: str, legend: str = "", *, ref: str = "A") -> prometheus.Dataquery:
    """Ask over the time that is shown."""
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(expression)
        .legend_format(legend or "__auto")
        .range()
        .ref_id(ref)
    )


def latest(expression: str, *, ref: str = "A") -> prometheus.Dataquery:
    """Ask for the last value of every series, as rows of a table."""
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(expression)
        .instant()
        .format(queries.PromQueryFormat.TABLE)
        .ref_id(ref)
    )


def thresholds(steps: Steps) -> dashboard_builders.ThresholdsConfig:
    """Colour values by steps."""
    return (
        dashboard_builders.ThresholdsConfig()
        .mode(dashboards.ThresholdsMode.ABSOLUTE)
        .steps([dashboards.Threshold(value=value, color=colour) for value, colour in steps])
    )


def figure(title: str, expression: str, unit: str, steps: Steps) -> stat.Panel:
    """Show one number, coloured by what it means."""
    return (
        stat.Panel()
        .title(title)
        .datasource(SOURCE)
        .with_target(query(expression))
        .unit(unit)
        .thresholds(thresholds(steps))
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(common.BigValueColorMode.BACKGROUND_SOLID)
        .no_value("0")
        .height(4)
        .span(6)
    )


def curves(
    title: str, *targets: prometheus.Dataquery, unit: str = "short", steps: Steps | None = None
) -> timeseries.Panel:
    """Draw how something went; `steps` become lines across it."""
    panel = (
        timeseries.Panel()
        .title(title)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .line_width(1)
        .fill_opacity(8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)  # noqa: FBT003
        )
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        .height(8)
        .span(12)
    )
    for place, target in enumerate(targets):
        panel = panel.with_target(target.ref_id(chr(ord("A") + place)))
    if steps is not None:
        panel = panel.thresholds(thresholds(steps)).thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(
                common.GraphThresholdsStyleMode.DASHED
            )
        )
    return panel


def heat(title: str, buckets: str) -> heatmap.Panel:
    """Show how many fell into which bucket when."""
    return (
        heatmap.Panel()
        .title(title)
        .datasource(SOURCE)
        .with_target(query(buckets, "{{le}}").format(queries.PromQueryFormat.HEATMAP))
        .calculate(False)  # noqa: FBT003
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmaps.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .steps(32)
        )
        .interval("5m")
        .height(10)
        .span(12)
    )


def rows(
    title: str, columns: Sequence[tuple[str, str, str, Steps | None]], *, labels: dict[str, str]
) -> table.Panel:
    """List series side by side, the largest of the first column on top.

    `columns` are name, expression, unit and colours; `labels` what the series share, by its name in
    the table. All expressions must leave the same labels.
    """
    panel = table.Panel().title(title).datasource(SOURCE).height(10).span(12)
    shown = dict(labels)
    for place, (name, expression, unit, steps) in enumerate(columns):
        ref = chr(ord("A") + place)
        shown[f"Value #{ref}"] = name
        panel = panel.with_target(latest(expression, ref=ref))
        looks: list[dashboards.DynamicConfigValue] = [
            dashboards.DynamicConfigValue(id_val="unit", value=unit)
        ]
        if steps is not None:
            looks += [
                dashboards.DynamicConfigValue(id_val="thresholds", value=thresholds(steps).build()),
                dashboards.DynamicConfigValue(
                    id_val="custom.cellOptions", value={"type": "color-background"}
                ),
            ]
        panel = panel.override_by_name(name, looks)
    return (
        panel.with_transformation(dashboards.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            dashboards.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: place for place, name in enumerate(shown)},
                    "renameByName": shown,
                },
            )
        )
        .sort_by([common_builders.TableSortByFieldState().display_name(columns[0][0]).desc(True)])  # noqa: FBT003
    )
