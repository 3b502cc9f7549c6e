"""From counts to the rows of the report: the columns of form II.06a/VPCP/KSTT and beyond.

The definitions, for everybody who counts the same facts elsewhere. A period is [from, to); `at` is
the instant the report is computed (`as_of` in the answer); days are local (Asia/Ho_Chi_Minh).

**Dossiers.** A row counts the dossiers its unit is *competent* for. Only those that were validly
received count anywhere: `received_at` is set and the status is neither 1 (submitted) nor 3
(refused). Every column is counted on its own, none by subtraction.

- `received.online`, `received.direct` (direct and postal): received in [from, to).
- `received.carried_over`: received before `from` and not ended before `from`.
- `resolved`: ended in [from, to) - `late` with more than one supplement request or when it ended
  after the appointment's day, else `early` before that day, else `on_time`. Where no appointment
  was given, none was missed: on time.
- `pending`: received before `to` and not ended before `to` - `overdue` if it would be `late` when
  it ended at min(at, to): more than one supplement request, or the appointment's day is over.
  On the appointment's own day it is still `in_time`, whatever the hour, as it would be resolved
  on time.
- `returned`: results handed over in [from, to), whenever the dossier was received or ended.
- `received_elsewhere`: of those received in [from, to), another unit received them for this one.
  `received_for_others`: received here in [from, to), another unit is competent; these stand in no
  other column of this row. For the city the two are equal.
- `boundary_independent`, `digitisation`: of those received in [from, to): how many were of a
  boundary-independent procedure; their papers, of these digitised, of these reused.

Identity of the form: column 3 = 7 + 11, `received.total = resolved.total + pending.total`. It
holds for every dossier that ended no earlier than it was received.

**Queue.** The cohort is the tickets issued in [from, to); what became of them counts whenever it
happened up to `at`, also after `to`.

- `tickets`: issued to a person; `transferred_in`: continues a ticket of another unit. Such a one
  keeps the arrival of the ticket that it continues as its issue: the cohort and the wait go by it.
  What it continues has ended as `transferred`, and counts where it was issued.
- `called`: with a first call. `finished`, `no_show`, `cancelled`: in that status now;
  cancelled are also those that were not printed, or left over when their day or unit ended.
- `wait_p50_seconds`, `wait_p95_seconds`, `wait_max_seconds`: of the waits from issue to *first*
  call, in seconds, not rounded. Nearest rank: of n waits in ascending order the ceil(p x n)-th
  one. Null when nobody was called.
- `within_sla`: first calls whose wait was at most `sla_seconds` (1,200: equal is within).
- `uncalled_beyond_sla`: tickets without any call that waited longer than `sla_seconds`. Such a
  wait runs from issue to the ticket's end (cancelled, or sent to another unit), else to `at` - not
  to `to`, or somebody who came late on the last evening and was never called would count nowhere.
- `share_within_sla` = within_sla / (called + uncalled_beyond_sla), not rounded, null when that is
  0. Who still waits within the promise is in neither.

A ticket belongs to a unit, not to a field: in `fields` every queue figure is null.
"""

from typing import Any, NamedTuple


class DossierCounts(NamedTuple):
    """What is counted of dossiers for one row; names as in the columns."""

    online: int = 0
    direct: int = 0
    carried_over: int = 0
    early: int = 0
    on_time: int = 0
    late: int = 0
    in_time: int = 0
    overdue: int = 0
    returned: int = 0
    received_for_others: int = 0
    received_elsewhere: int = 0
    boundary_independent: int = 0
    components: int = 0
    components_digitised: int = 0
    components_reused: int = 0

    @property
    def received(self) -> int:
        """Column 3 = 4 + 5 + 6."""
        return self.online + self.direct + self.carried_over

    @property
    def resolved(self) -> int:
        """Column 7 = 8 + 9 + 10."""
        return self.early + self.on_time + self.late

    @property
    def pending(self) -> int:
        """Column 11 = 12 + 13."""
        return self.in_time + self.overdue

    @property
    def balanced(self) -> bool:
        """Whether the identity of the form holds: 3 = 7 + 11."""
        return self.received == self.resolved + self.pending


class QueueCounts(NamedTuple):
    """What is counted of tickets for one row; waits in seconds, None where nobody was called."""

    tickets: int = 0
    transferred_in: int = 0
    called: int = 0
    finished: int = 0
    no_show: int = 0
    cancelled: int = 0
    within_sla: int = 0
    uncalled_beyond_sla: int = 0
    wait_p50_seconds: float | None = None
    wait_p95_seconds: float | None = None
    wait_max_seconds: float | None = None

    @property
    def share_within_sla(self) -> float | None:
        """The promise kept, as a share; None when nobody's wait is decided."""
        decided = self.called + self.uncalled_beyond_sla
        return self.within_sla / decided if decided else None


NO_DOSSIERS, NO_TICKETS = DossierCounts(), QueueCounts()


def figures(dossiers: DossierCounts, queue: QueueCounts | None) -> dict[str, Any]:
    """Give one row of the report without its name; without a queue its figures are null."""
    return {
        "received": {
            "total": dossiers.received,
            "online": dossiers.online,
            "direct": dossiers.direct,
            "carried_over": dossiers.carried_over,
        },
        "resolved": {
            "total": dossiers.resolved,
            "early": dossiers.early,
            "on_time": dossiers.on_time,
            "late": dossiers.late,
        },
        "pending": {
            "total": dossiers.pending,
            "in_time": dossiers.in_time,
            "overdue": dossiers.overdue,
        },
        "returned": dossiers.returned,
        "received_for_others": dossiers.received_for_others,
        "received_elsewhere": dossiers.received_elsewhere,
        "boundary_independent": dossiers.boundary_independent,
        "digitisation": {
            "components": dossiers.components,
            "digitised": dossiers.components_digitised,
            "reused": dossiers.components_reused,
        },
        "identity_holds": dossiers.balanced,
        "queue": queue_figures(queue),
    }


def queue_figures(queue: QueueCounts | None) -> dict[str, Any]:
    """Give the queue's part of a row; all null where a queue has no meaning."""
    if queue is None:
        return dict.fromkeys((*QueueCounts._fields, "share_within_sla"))
    return {**queue._asdict(), "share_within_sla": queue.share_within_sla}
