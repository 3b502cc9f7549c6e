"""The three dashboards: the city at a glance, one centre, and the machinery behind them.

Several replicas of the queue measure the same unit: gauges of units are taken by `max`, what each
counts for itself by `sum`.
"""

from collections.abc import Callable
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink, QueryVariable, Row
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, VariableRefresh, VariableSort

from deploy.monitoring.grafana.panels import (
    AT_RISK,
    NONE_IS_GOOD,
    PROMISE,
    SOURCE,
    WAITS,
    Steps,
    curves,
    figure,
    heat,
    named,
    query,
    rows,
)

PLAIN: Final[Steps] = ((None, "blue"),)
SHARES: Final[Steps] = ((None, "red"), (0.95, "orange"), (0.98, "green"))
"""Of people called in time; the advice on counters plans for two in a hundred that are not."""

NAMES: Final = "on (unit) group_left (name) motcua:unit_name"
_WITHIN: Final = f'motcua_queue_wait_seconds_bucket{{le="{PROMISE:.1f}"}}'
_DOOR: Final = "motcua_http_request_duration_seconds"


def _board(uid: str, title: str, refresh: str, since: str) -> Dashboard:
    return (
        Dashboard(title)
        .uid(uid)
        .tags(["motcua"])
        .timezone("Asia/Ho_Chi_Minh")
        .time(since, "now")
        .refresh(refresh)
        .readonly()
        .link(
            DashboardLink("motcua")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["motcua"])
            .keep_time(True)  # noqa: FBT003
        )
    )


def _of_units(gauge: str) -> str:
    # Without a forecast (no counter open) the gauge is NaN, which is no number to show.
    return f"(max by (unit) (motcua_queue_{gauge}) >= 0)"


def city() -> Dashboard:
    """Whom does the city keep waiting now, and how did the day go?"""
    oldest = _of_units("oldest_wait_seconds")
    calls = "motcua_queue_wait_seconds_count"
    return (
        _board("motcua-city", named("Thành phố", "The city"), "10s", "now/d")
        .with_panel(
            figure(
                named("Đang chờ", "People waiting"),
                f"sum({_of_units('waiting_tickets')})", "short", PLAIN,
            )
        )
        .with_panel(
            figure(
                named("Nơi chờ quá 20 phút", "Centres past 20 minutes"),
                f"count({oldest} > {PROMISE}) or vector(0)", "short", NONE_IS_GOOD,
            )
        )
        .with_panel(
            figure(
                named("Được gọi trong 20 phút", "Called within 20 minutes"),
                f"sum(increase({_WITHIN}[$__range])) / sum(increase({calls}[$__range]))",
                "percentunit", SHARES,
            )
        )
        .with_panel(
            figure(
                named("Quầy đang mở", "Counters open"),
                f"sum({_of_units('open_counters')})", "short", PLAIN,
            )
        )
        .with_panel(
            rows(
                named("Chờ lâu nhất", "Worst waits"),
                [
                    (named("Lâu nhất", "Longest"), f"{oldest} * {NAMES}", "s", WAITS),
                    (named("Dự báo", "Forecast"),
                     f"{_of_units('forecast_wait_seconds')} * {NAMES}", "s", WAITS),
                    (named("Đang chờ", "Waiting"),
                     f"{_of_units('waiting_tickets')} * {NAMES}", "short", None),
                    (named("Quầy mở", "Counters"),
                     f"{_of_units('open_counters')} * {NAMES}", "short", None),
                ],
                labels={"unit": named("Mã", "Code"), "name": named("Đơn vị", "Unit")},
            )
        )
        .with_panel(
            heat(
                named("Thời gian chờ trong ngày", "Waits over the day"),
                "sum by (le) (increase(motcua_queue_wait_seconds_bucket[$__rate_interval]))",
            )
        )
        .with_panel(
            curves(
                named("Tỷ lệ gọi trong 20 phút", "Share called within 20 minutes"),
                query(f"sum(rate({_WITHIN}[1h])) / sum(rate({calls}[1h]))", "≤ 20 min"),
                unit="percentunit",
                steps=SHARES,
            ).max(1)
        )
        .with_panel(
            curves(
                named("Lượt mỗi giờ", "Throughput an hour"),
                query(_per_hour("/v1/tickets", "201"), named("lấy số", "tickets issued")),
                query(f"sum(rate({calls}[$__rate_interval])) * 3600", named("gọi", "called")),
                query(_per_hour("/v1/tickets/{ticket_id}/finish"), named("xong", "finished")),
            )
        )
    )  # fmt: skip


def _per_hour(route: str, status: str = "200") -> str:
    """Count what the queue did, as it answered: replayed answers are counted too, and are rare."""
    labels = f'service="queue", route="{route}", method="POST", status="{status}"'
    return f"sum(rate({_DOOR}_count{{{labels}}}[$__rate_interval])) * 3600"


def centre() -> Dashboard:
    """One centre: its queue, its counters, and what is foretold."""
    unit = 'unit="$unit"'

    def of(gauge: str) -> str:
        return f"max(motcua_queue_{gauge}{{{unit}}}) >= 0"

    return (
        _board("motcua-centre", named("Trung tâm", "One centre"), "10s", "now/d")
        .with_variable(
            QueryVariable("unit")
            .label(named("Đơn vị", "Unit"))
            .datasource(SOURCE)
            .query("query_result(motcua:unit_name)")
            # Chosen by name, asked by code.
            .regex('/name="(?<text>[^"]*)|unit="(?<value>[^"]*)/g')
            .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
            .sort(VariableSort.ALPHABETICAL_ASC)
        )
        .with_panel(
            figure(named("Đang chờ", "People waiting"), of("waiting_tickets"), "short", PLAIN)
        )
        .with_panel(
            figure(named("Chờ lâu nhất", "Longest wait"), of("oldest_wait_seconds"), "s", WAITS)
        )
        .with_panel(
            figure(
                named("Dự báo cho người mới đến", "Forecast for a newcomer"),
                of("forecast_wait_seconds"), "s", WAITS,
            ).no_value("–")
        )
        .with_panel(
            figure(
                named("Quầy đang mở", "Counters open"),
                of("open_counters"), "short", ((None, "red"), (1, "blue")),
            )
        )
        .with_panel(
            curves(
                named("Chờ đợi", "Waits"),
                query(of("oldest_wait_seconds"), named("lâu nhất", "longest")),
                query(of("forecast_wait_seconds"), named("dự báo", "forecast")),
                unit="s",
                steps=((None, "transparent"), (AT_RISK, "orange"), (PROMISE, "red")),
            )
        )
        .with_panel(
            curves(
                named("Hàng đợi và quầy", "Queue and counters"),
                query(of("waiting_tickets"), named("người chờ", "people waiting")),
                query(of("open_counters"), named("quầy mở", "counters open")),
                query(of("counters_advised"), named("quầy nên mở", "counters advised")),
            )
        )
        .with_panel(
            curves(
                named("Chờ quá 20 phút, mỗi giờ", "Kept waiting past 20 minutes, an hour"),
                query(
                    f"sum(increase(motcua_queue_sla_breaches_total{{{unit}}}[1h]))",
                    named("người", "people"),
                ),
                steps=NONE_IS_GOOD,
            ).span(24)
        )
    )  # fmt: skip


def system() -> Dashboard:
    """The services: are they asked, do they answer in time, do their events flow?"""
    seconds = f"sum by (service, le) (rate({_DOOR}_bucket[$__rate_interval]))"
    count = f"rate({_DOOR}_count[$__rate_interval])"
    failed = "sum by (service) (rate(motcua_http_failures_total[$__rate_interval]))"
    return (
        _board("motcua-system", named("Hệ thống", "The system"), "30s", "now-3h")
        .with_row(Row(named("Yêu cầu", "Requests")))
        .with_panel(
            curves(
                named("Yêu cầu mỗi giây", "Requests a second"),
                query(f"sum by (service) ({count})", "{{service}}"), unit="reqps",
            )
        )
        .with_panel(
            curves(
                named("Tỷ lệ lỗi của máy chủ", "Share of server errors"),
                query(f"{failed} / sum by (service) ({count})", "{{service}}"), unit="percentunit",
            )
        )
        .with_panel(
            curves(
                named("Thời gian trả lời", "Time to answer"),
                query(f"histogram_quantile(0.5, {seconds})", "{{service}} P50"),
                query(f"histogram_quantile(0.99, {seconds})", "{{service}} P99"),
                unit="s",
            )
        )
        .with_panel(
            curves(
                named("Mười lệnh gọi chậm nhất, P99", "Ten slowest calls, P99"),
                query(
                    "topk(10, histogram_quantile(0.99, sum by (service, method, route, le) "
                    f"(rate({_DOOR}_bucket[$__rate_interval]))))",
                    "{{service}} {{method}} {{route}}",
                ),
                unit="s",
            )
        )
        .with_row(Row(named("Sự kiện", "Events")))
        .with_panel(
            curves(
                named("Sự kiện chưa xử lý", "Consumer lag"),
                query("max by (service, topic) (motcua_consumer_lag)", "{{service}} {{topic}}"),
            )
        )
        .with_panel(
            curves(
                named("Sự kiện chờ gửi lâu nhất", "Oldest event in the outbox"),
                query(
                    "max by (service) (motcua_outbox_oldest_age_seconds)", "{{service}}"
                ),
                unit="s",
                steps=((None, "transparent"), (60, "red")),
            )
        )
        .with_panel(
            curves(
                named("Thư chết, mỗi giờ", "Dead letters, an hour"),
                query(
                    "sum by (service, topic) (increase(motcua_dlq_messages_total[1h]))",
                    "{{service}} {{topic}}",
                ),
                steps=NONE_IS_GOOD,
            )
        )
        .with_row(Row(named("Cửa và tiến trình", "The door and the processes")))
        .with_panel(
            curves(
                named("Kết nối cơ sở dữ liệu đang dùng", "Database connections in use"),
                query(
                    "max by (service, pool) "
                    "(motcua_database_connections_used / motcua_database_connections_limit)",
                    "{{service}} {{pool}}",
                ),
                unit="percentunit",
                steps=((None, "transparent"), (0.9, "red")),
            )
        )
        .with_panel(
            curves(
                named("Mạch ngắt", "Circuits open"),
                query("max by (upstream) (motcua_gateway_circuit_open)", "{{upstream}}"),
                steps=NONE_IS_GOOD,
            )
        )
        .with_panel(
            curves(
                named("Lệnh gọi đang chạy", "Calls under way"),
                query("sum by (what) (motcua_gateway_open)", "{{what}}"),
            )
        )
        .with_panel(
            curves(
                named("Luồng trực tiếp đang mở", "Live streams open"),
                query("sum by (of) (motcua_queue_streams)", "{{of}}"),
            )
        )
        .with_panel(
            curves(
                named("Bộ xử lý", "Processor"),
                query("rate(process_cpu_seconds_total[$__rate_interval])", "{{instance}}"),
            )
        )
        .with_panel(
            curves(
                named("Bộ nhớ", "Memory"),
                query("process_resident_memory_bytes", "{{instance}}"), unit="bytes",
            )
        )
    )  # fmt: skip


BOARDS: Final[dict[str, Callable[[], Dashboard]]] = {
    "city": city,
    "centre": centre,
    "system": system,
}
"""Every dashboard by the name of its file."""
