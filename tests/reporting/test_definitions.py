"""What each figure means, by a small example; the reference in words is `forms`."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from libs.contracts.intake import DossierStatus
from services.reporting.domain import WeekNotBegun
from tests.reporting.support import (
    DEPARTMENT,
    WEEK,
    A,
    B,
    afterwards,
    at,
    dossier,
    report,
    ticket,
    walk,
)
from tests.support import logged_by

BEGINS, ENDS = WEEK.begins, WEEK.ends


def row_of(answer: dict[str, Any], unit: str) -> dict[str, Any]:
    """Find a unit's row."""
    found: dict[str, Any] = next(row for row in answer["units"] if row["unit"] == unit)
    return found


async def test_received_are_told_by_channel_and_old_ones_are_carried_over(
    session: AsyncSession,
) -> None:
    answer = await report(
        session,
        dossier(channel="online"),
        dossier(channel="direct"),
        dossier(channel="postal"),
        dossier(received_at=at("2026-11-12 23:59")),
        dossier(received_at=at("2026-11-10 08:00"), ended_at=at("2026-11-12 08:00")),
        dossier(received_at=ENDS),
    )
    assert answer["city"]["received"] == {
        "total": 4, "online": 1, "direct": 2, "carried_over": 1,
    }  # fmt: skip


async def test_submitted_and_refused_dossiers_were_never_received(session: AsyncSession) -> None:
    answer = await report(
        session,
        dossier(status=DossierStatus.submitted, received_at=None),
        dossier(status=DossierStatus.refused, received_at=None, ended_at=at("2026-11-17 08:00")),
        dossier(status=DossierStatus.withdrawn, received_at=None, ended_at=at("2026-11-17 08:00")),
    )
    assert answer["city"]["received"]["total"] == 0
    assert answer["city"]["resolved"]["total"] == 0
    assert answer["city"]["pending"]["total"] == 0


@pytest.mark.parametrize(
    ("ended", "requests", "kind"),
    [
        ("2026-11-17 23:59", 0, "early"),
        ("2026-11-18 00:00", 0, "on_time"),
        ("2026-11-18 23:59", 1, "on_time"),
        ("2026-11-19 00:00", 0, "late"),
        ("2026-11-17 08:00", 2, "late"),
    ],
)
async def test_punctuality_goes_by_the_local_day_of_the_appointment(
    session: AsyncSession, ended: str, requests: int, kind: str
) -> None:
    answer = await report(
        session,
        dossier(
            appointment_at=at("2026-11-18 17:00"),
            ended_at=at(ended),
            supplement_requests=requests,
        ),
    )
    resolved = answer["city"]["resolved"]
    assert resolved == {"total": 1, "early": 0, "on_time": 0, "late": 0, kind: 1}


async def test_without_an_appointment_none_is_missed(session: AsyncSession) -> None:
    answer = await report(
        session,
        dossier(appointment_at=None, ended_at=at("2026-11-18 09:00")),
        dossier(appointment_at=None),
    )
    assert answer["city"]["resolved"]["on_time"] == 1
    assert answer["city"]["pending"]["in_time"] == 1


async def test_what_ended_at_the_closing_instant_was_still_pending(session: AsyncSession) -> None:
    answer = await report(session, dossier(ended_at=ENDS, appointment_at=ENDS))
    assert answer["city"]["pending"] == {"total": 1, "in_time": 1, "overdue": 0}
    following = await report(session, week="2026-W48")
    assert following["city"]["received"]["carried_over"] == 1
    assert following["city"]["resolved"]["on_time"] == 1


@pytest.mark.parametrize(
    ("now", "appointment", "requests", "overdue"),
    [
        ("2026-11-18 17:30", "2026-11-18 17:00", 0, 0),  # its day is not over
        ("2026-11-19 00:00", "2026-11-18 17:00", 0, 1),
        ("2026-11-18 08:00", "2026-11-18 17:00", 2, 1),  # asked twice: counts as overdue
        ("2026-11-25 12:00", "2026-11-19 17:00", 0, 1),  # over: as of the week's end
        ("2026-11-25 12:00", "2026-11-20 17:00", 0, 0),
    ],
)
async def test_overdue_is_what_would_be_late_if_it_ended_now_or_when_the_week_ended(
    session: AsyncSession, now: str, appointment: str, requests: int, overdue: int
) -> None:
    answer = await report(
        session,
        dossier(appointment_at=at(appointment), supplement_requests=requests),
        now=at(now),
    )
    expected = {"total": 1, "in_time": 1 - overdue, "overdue": overdue}
    assert answer["city"]["pending"] == expected


async def test_returned_counts_by_the_day_of_returning_alone(session: AsyncSession) -> None:
    old = {"received_at": at("2026-11-02 08:00"), "ended_at": at("2026-11-05 08:00")}
    answer = await report(
        session,
        dossier(**old, returned_at=BEGINS),
        dossier(**old, returned_at=at("2026-11-12 23:59")),
        dossier(**old, returned_at=ENDS),
    )
    assert answer["city"]["returned"] == 1
    assert answer["city"]["received"]["total"] == answer["city"]["resolved"]["total"] == 0


async def test_a_dossier_stands_with_the_competent_unit_and_is_noted_with_the_receiving_one(
    session: AsyncSession,
) -> None:
    answer = await report(session, dossier(receiving_unit=A, competent_unit=B))
    assert row_of(answer, B)["received"]["total"] == 1
    assert row_of(answer, B)["received_elsewhere"] == 1
    assert row_of(answer, A)["received"]["total"] == 0
    assert row_of(answer, A)["received_for_others"] == 1
    assert answer["city"]["received_for_others"] == answer["city"]["received_elsewhere"] == 1


async def test_one_units_report_is_its_row_and_nobody_elses(session: AsyncSession) -> None:
    whole = await report(
        session,
        dossier(receiving_unit=A, competent_unit=B, field="Đất đai"),
        dossier(),
        *ticket(at("2026-11-16 08:00"), unit=A, called=60),
        *ticket(at("2026-11-16 08:00"), unit=B, called=90),
    )
    alone = await report(session, unit=A)
    assert alone["units"] == [row_of(whole, A)]
    named = ("unit", "name")
    assert alone["city"] == {k: v for k, v in row_of(whole, A).items() if k not in named}
    fields = {row["field"]: row for row in alone["fields"]}
    assert fields["Đất đai"]["received_for_others"] == 1
    assert fields["Hộ tịch"]["received"]["total"] == 1


async def test_departments_and_others_appear_when_they_have_dossiers(session: AsyncSession) -> None:
    before = await report(session)
    assert [row["unit"] for row in before["units"]] == [A, B]
    after = await report(
        session, dossier(competent_unit=DEPARTMENT), dossier(competent_unit="national")
    )
    rows = [(row["unit"], row["name"]) for row in after["units"]]
    assert rows == [(A, "Phường A"), (B, "Phường B"), (DEPARTMENT, "Sở"), ("national", "national")]


async def test_digitisation_counts_the_papers_of_what_came_in(session: AsyncSession) -> None:
    papers = {"components": 4, "components_digitised": 3, "components_reused": 1}
    answer = await report(
        session,
        dossier(**papers),
        dossier(**papers, received_at=at("2026-11-10 08:00")),
        dossier(boundary_independent=False),
    )
    assert answer["city"]["digitisation"] == {"components": 4, "digitised": 3, "reused": 1}
    assert answer["city"]["boundary_independent"] == 1


async def test_a_dossier_that_contradicts_itself_is_shown_and_logged(session: AsyncSession) -> None:
    wrong = dossier(
        received_at=at("2026-11-13 08:00"), ended_at=at("2026-11-12 08:00"), competent_unit=B
    )
    with logged_by("services.reporting.domain") as logs:
        answer = await report(session, wrong)
    assert row_of(answer, A)["identity_holds"]
    assert not row_of(answer, B)["identity_holds"]
    assert not answer["identity"]["holds"]
    named = {(row["row"], row["name"]) for row in answer["identity"]["violated"]}
    assert named == {("city", None), ("unit", B), ("field", "Hộ tịch")}
    logged = [entry for entry in logs if entry["event"] == "report.identity_violated"]
    assert {entry["name"] for entry in logged} == {None, B, "Hộ tịch"}
    assert all(entry["log_level"] == "error" for entry in logged)


async def test_waits_are_nearest_rank_over_the_first_calls_of_the_tickets_issued(
    session: AsyncSession,
) -> None:
    issued = at("2026-11-16 08:00")
    lives = [ticket(issued, called=wait, ends="finished", ends_after=5000)
             for wait in (10, 20.5, 1200)]  # fmt: skip
    late = ticket(issued, called=1200.001, ends="finished", ends_after=5000)
    events = [event for life in (*lives, late) for event in life]
    answer = await report(session, *events, *afterwards(late, receipt=4000.5, score=4))
    assert answer["city"]["queue"] == {
        "tickets": 4, "transferred_in": 0, "called": 4, "finished": 4, "no_show": 0,
        "cancelled": 0, "within_sla": 3, "uncalled_beyond_sla": 0, "wait_p50_seconds": 20.5,
        "wait_p95_seconds": 1200.001, "wait_max_seconds": 1200.001, "share_within_sla": 0.75,
        "receipts": 1, "receipt_p50_seconds": 4000.5, "receipt_p95_seconds": 4000.5,
        "receipt_max_seconds": 4000.5, "rated": 1, "score_mean": 4,
    }  # fmt: skip


async def test_the_cohort_is_what_was_issued_in_the_week_whenever_it_was_called(
    session: AsyncSession,
) -> None:
    minute = 60
    answer = await report(
        session,
        *ticket(at("2026-11-12 23:59"), called=2 * minute),
        *ticket(BEGINS, called=0),
        *ticket(at("2026-11-19 23:59"), called=30 * minute, ends="no_show", ends_after=2000),
        *ticket(ENDS, called=10),
    )
    queue = answer["city"]["queue"]
    assert (queue["tickets"], queue["called"], queue["no_show"]) == (2, 2, 1)
    assert (queue["wait_p50_seconds"], queue["wait_max_seconds"]) == (0, 1800)


async def test_who_was_never_called_counts_once_the_wait_is_longer_than_promised(
    session: AsyncSession,
) -> None:
    now = at("2026-11-16 08:20:00")
    answer = await report(
        session,
        *ticket(at("2026-11-16 08:00:00")),  # waits 1,200 s: not longer
        *ticket(at("2026-11-16 07:59:59")),  # waits 1,201 s
        *ticket(at("2026-11-16 07:00"), ends="cancelled", ends_after=1200),
        *ticket(at("2026-11-16 07:00"), ends="cancelled", ends_after=1200.5),
        *ticket(at("2026-11-16 08:10"), called=5),
        now=now,
    )
    queue = answer["city"]["queue"]
    assert (queue["called"], queue["uncalled_beyond_sla"], queue["cancelled"]) == (1, 2, 2)
    assert queue["share_within_sla"] == 1 / 3


async def test_who_was_sent_on_is_a_ticket_where_it_came_from_and_transferred_in_where_it_went(
    session: AsyncSession,
) -> None:
    """The wait of a linked ticket runs from the arrival that it keeps, to its own first call."""
    came = at("2026-11-16 08:00")
    served = walk(came, ("call", 60.0), ("start", 70.0), ("send-away", 300.0))
    tired = walk(came, ("send-away", 1300.0))
    quick = walk(came, ("send-away", 100.0))
    answer = await report(
        session,
        *(event for life in (served, tired, quick) for event in life),
        *walk(came, ("call", 900.0), unit=B, continues=served[0].ticket_id),
        *walk(came, ("call", 1400.0), unit=B, continues=tired[0].ticket_id),
        *walk(came, ("fail", 200.0), unit=B, continues=quick[0].ticket_id),
    )
    here, there = row_of(answer, A)["queue"], row_of(answer, B)["queue"]
    assert (here["tickets"], here["transferred_in"], here["called"]) == (3, 0, 1)
    assert (here["within_sla"], here["uncalled_beyond_sla"]) == (1, 1)
    assert (there["tickets"], there["transferred_in"], there["called"]) == (0, 3, 2)
    assert (there["within_sla"], there["wait_max_seconds"]) == (1, 1400)
    assert there["share_within_sla"] == 0.5
    city = answer["city"]["queue"]
    assert (city["tickets"], city["transferred_in"], city["cancelled"]) == (3, 3, 1)


async def test_the_first_call_ends_the_wait_however_often_the_person_waits_again(
    session: AsyncSession,
) -> None:
    life = walk(
        at("2026-11-16 08:00"), ("call", 30.0), ("park", 60.0), ("return", 3000.0),
        ("call", 3600.0), ("send-on", 3700.0),
    )  # fmt: skip
    answer = await report(session, *life)
    queue = answer["city"]["queue"]
    assert (queue["called"], queue["wait_max_seconds"], queue["uncalled_beyond_sla"]) == (1, 30, 0)
    assert (queue["finished"], queue["cancelled"], queue["share_within_sla"]) == (0, 0, 1)


async def test_without_a_decided_wait_there_is_no_share(session: AsyncSession) -> None:
    answer = await report(session, *ticket(at("2026-11-16 08:00")), now=at("2026-11-16 08:01"))
    queue = answer["city"]["queue"]
    assert queue["tickets"] == 1
    assert queue["share_within_sla"] is queue["wait_p50_seconds"] is None


async def test_a_field_has_no_queue(session: AsyncSession) -> None:
    answer = await report(session, dossier())
    assert set(answer["fields"][0]["queue"].values()) == {None}


async def test_the_running_week_answers_and_one_that_has_not_begun_does_not(
    session: AsyncSession,
) -> None:
    assert (await report(session, now=BEGINS))["week"] == WEEK.name
    with pytest.raises(WeekNotBegun, match="2026-11-13T00:00:00\\+07:00"):
        await report(session, now=at("2026-11-12 23:59"))
