"""The life of a job under its worker: claims, fences, leases, cancels, retries; by example, and as a state machine."""

from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select, text

from mr_core.errors import JobCancelled
from service import attempts, events, jobs
from service.attempts import Claim
from service.errors import Fenced, JobFinished
from service.models import TERMINAL_STATUSES, Event, Job, StoredArtifact
from service.session import Database
from service.settings import Settings
from service.sweeper import Sweeper
from tests.service.acting import LEASE_S, claim, make_sweeper, move_clock, read, start, submit


def test_only_one_of_two_claims_succeeds(database: Database) -> None:
    job_id = submit(database)
    first, second = claim(database, job_id), claim(database, job_id)
    assert first is not None
    assert first.fence == 1
    assert second is None
    assert claim(database, "job_unknown") is None


def test_environment_of_the_first_claim_stays(database: Database) -> None:
    first = start(database)
    with database.session() as session:
        attempts.finish_failed(session, first, "worker_lost", "gone")
    assert first.environment == {}
    job_id = submit(database)
    claimed = claim(database, job_id, threads=4)
    assert claimed is not None
    with database.session() as session:
        attempts.release(session, claimed)
    again = claim(database, job_id, threads=1)
    assert again is not None
    assert again.environment == {"threads": 4}


def test_child_gets_the_claim_by_id_and_fence(database: Database) -> None:
    claimed = start(database)
    with database.session() as session:
        assert attempts.resume(session, claimed.job_id, claimed.fence, lease_s=LEASE_S) == claimed
        with pytest.raises(Fenced):
            attempts.resume(session, claimed.job_id, claimed.fence - 1, lease_s=LEASE_S)


def test_result_is_committed_with_all_that_belongs_to_it(database: Database) -> None:
    claimed = start(database)
    with database.session() as session:
        artifact = StoredArtifact(
            job_id=claimed.job_id, name="report.html", media_type="text/html", sha256="0" * 64, size_bytes=1
        )
        attempts.finish_succeeded(session, claimed, {"ok": True}, artifacts=[artifact])
    job = read(database, claimed.job_id)
    assert (job.status, job.result, job.error, job.lease_until) == ("succeeded", {"ok": True}, None, None)
    assert [attempt["outcome"] for attempt in job.attempts] == ["succeeded"]
    with database.session() as session:
        assert session.get(StoredArtifact, (claimed.job_id, "report.html")) is not None


def test_nothing_is_written_under_an_old_fence(database: Database) -> None:
    old = start(database)
    with database.session() as session:
        attempts.finish_failed(session, old, "worker_lost", "gone")
    assert claim(database, old.job_id) is not None
    writes = [
        lambda s: attempts.heartbeat(s, old),
        lambda s: attempts.is_cancelling(s, old),
        lambda s: attempts.stalled_s(s, old),
        lambda s: attempts.record_phase(s, old, "training"),
        lambda s: attempts.record_progress(s, old, {"step": 1}),
        lambda s: attempts.record_events(s, old, [("message", {"text": "late"}, "info")]),
        lambda s: attempts.save_checkpoint(s, old, "training", step=1, state={}, sha256="0" * 64),
        lambda s: attempts.finish_succeeded(s, old, {}),
        lambda s: attempts.finish_failed(s, old, "internal_error", "late"),
        lambda s: attempts.finish_cancelled(s, old),
        lambda s: attempts.release(s, old),
    ]
    before = vars(read(database, old.job_id)).copy()
    for write in writes:
        with pytest.raises(Fenced), database.session() as session:
            write(session)
    after = vars(read(database, old.job_id)).copy()
    del before["_sa_instance_state"], after["_sa_instance_state"]
    assert before == after


def test_expired_lease_fences_even_without_a_successor(database: Database) -> None:
    claimed = start(database)
    move_clock(database, LEASE_S + 1)
    with pytest.raises(Fenced), database.session() as session:
        attempts.heartbeat(session, claimed)
    with pytest.raises(Fenced), database.session() as session:
        attempts.finish_succeeded(session, claimed, {})


def test_cancel_before_the_commit_wins(database: Database) -> None:
    claimed = start(database)
    with database.session() as session:
        assert jobs.request_cancel(session, "a", claimed.job_id).status == "cancelling"
    with database.session() as session:
        assert attempts.heartbeat(session, claimed)
    with pytest.raises(JobCancelled), database.session() as session:
        attempts.finish_succeeded(session, claimed, {"ok": True})
    with database.session() as session:
        attempts.finish_cancelled(session, claimed)
    job = read(database, claimed.job_id)
    assert (job.status, job.result) == ("cancelled", None)


@pytest.mark.parametrize("ending", ["finish_failed", "release"])
def test_any_end_of_a_cancelled_attempt_is_a_cancel(database: Database, ending: str) -> None:
    claimed = start(database)
    with database.session() as session:
        jobs.request_cancel(session, "a", claimed.job_id)
    with database.session() as session:
        if ending == "release":
            assert attempts.release(session, claimed) == "cancelled"
        else:
            assert attempts.finish_failed(session, claimed, "internal_error", "x") == "cancelled"
    assert read(database, claimed.job_id).status == "cancelled"


def test_infrastructure_failures_are_retried_until_attempts_are_spent(database: Database) -> None:
    job_id = submit(database, max_attempts=2)
    for expected in ("queued", "failed"):
        claimed = claim(database, job_id)
        assert claimed is not None
        with database.session() as session:
            assert attempts.finish_failed(session, claimed, "worker_lost", "gone") == expected
    job = read(database, job_id)
    assert job.error == {"code": "worker_lost", "detail": "gone", "param": None}
    assert [(attempt["number"], attempt["outcome"]) for attempt in job.attempts] == [
        (1, "worker_lost"),
        (2, "worker_lost"),
    ]


def test_other_failures_end_the_job_at_once(database: Database) -> None:
    claimed = start(database)
    with database.session() as session:
        status = attempts.finish_failed(session, claimed, "diverged", "nan", param="trainer.learning_rate")
    assert status == "failed"
    error = read(database, claimed.job_id).error
    assert error == {"code": "diverged", "detail": "nan", "param": "trainer.learning_rate"}


def test_out_of_memory_is_retried_once_with_half_the_batch(database: Database) -> None:
    first = start(database, max_attempts=5)
    assert first.batch_divisor == 1
    with database.session() as session:
        assert attempts.finish_failed(session, first, "cuda_oom", "full") == "queued"
    second = claim(database, first.job_id)
    assert second is not None
    assert second.batch_divisor == 2
    with database.session() as session:
        assert attempts.finish_failed(session, second, "worker_oom_killed", "full") == "failed"


def test_released_attempt_does_not_count(database: Database) -> None:
    job_id = submit(database, max_attempts=1)
    for _ in range(3):
        claimed = claim(database, job_id)
        assert claimed is not None
        with database.session() as session:
            assert attempts.release(session, claimed) == "queued"
    job = read(database, job_id)
    assert job.attempt == 0
    assert [attempt["outcome"] for attempt in job.attempts] == ["interrupted"] * 3


def test_later_attempt_finds_the_newest_checkpoint(database: Database) -> None:
    claimed = start(database)
    with database.session() as session:
        assert attempts.load_checkpoint(session, claimed, "training") is None
        for step in (1, 2):
            state = {"epoch": step}
            attempts.save_checkpoint(session, claimed, "training", step=step, state=state, sha256=str(step) * 64)
    with database.session() as session:
        attempts.finish_failed(session, claimed, "worker_lost", "gone")
    again = claim(database, claimed.job_id)
    assert again is not None
    with database.session() as session:
        found = attempts.load_checkpoint(session, again, "training")
        assert found is not None
        assert (found.step, found.state, found.sha256) == (2, {"epoch": 2}, "2" * 64)


def test_events_are_ordered_and_rolled_back_ones_leave_no_gap(database: Database) -> None:
    claimed = start(database)
    with suppress(ZeroDivisionError), database.session() as session:
        attempts.record_phase(session, claimed, "embedding")
        raise ZeroDivisionError
    with database.session() as session:
        attempts.record_phase(session, claimed, "training")
        attempts.record_events(session, claimed, [("metrics", {"epoch": n}, "info") for n in range(3)])
        attempts.finish_succeeded(session, claimed, {})
    with database.session() as session:
        found = events.list_events(session, claimed.job_id)
    assert [event.seq for event in found] == [1, 2, 3, 4, 5, 6, 7]
    kinds = ["status", "status", "phase", "metrics", "metrics", "metrics", "status"]
    assert [event.type for event in found] == kinds


WORK: dict[str, Any] = {
    "heartbeat": attempts.heartbeat,
    "phase": lambda session, held: attempts.record_phase(session, held, "training"),
    "progress": lambda session, held: attempts.record_progress(session, held, {"step": 1}),
    "events": lambda session, held: attempts.record_events(session, held, [("message", {"text": "x"}, "info")] * 2),
    "checkpoint": lambda session, held: attempts.save_checkpoint(
        session, held, "training", step=1, state={}, sha256="0" * 64
    ),
    "succeed": lambda session, held: attempts.finish_succeeded(session, held, {"ok": True}),
    "lose": lambda session, held: attempts.finish_failed(session, held, "worker_lost", "x"),
    "run out of memory": lambda session, held: attempts.finish_failed(session, held, "cuda_oom", "x"),
    "diverge": lambda session, held: attempts.finish_failed(session, held, "diverged", "x"),
    "confirm the cancel": attempts.finish_cancelled,
    "stop": attempts.release,
}
ACTIONS = [*WORK, *3 * ["claim"], *3 * ["cancel"], *2 * ["succeed"], "sweep", "a moment passes", "a lease passes"]
N_JOBS = 3


class JobLife(RuleBasedStateMachine):
    """Workers, clients, sweepers and the clock act on a few jobs in any order."""

    database: Database
    sweeper: Sweeper

    def __init__(self) -> None:
        super().__init__()
        with self.database.session() as session:
            session.execute(text("DELETE FROM jobs"))
        self.commits: dict[str, int] = {}
        self.ended: dict[str, tuple[str, Any, Any]] = {}
        self.fences: dict[str, int] = {}
        self.claims: dict[str, list[Claim]] = {}
        self.job_ids: list[str] = []

    @initialize(
        limits=st.lists(st.tuples(st.integers(1, 3), st.sampled_from([None, 100.0])), min_size=N_JOBS, max_size=N_JOBS)
    )
    def submit(self, limits: list[tuple[int, float | None]]) -> None:
        for max_attempts, deadline_s in limits:
            job_id = submit(self.database, max_attempts=max_attempts, deadline_s=deadline_s)
            self.job_ids.append(job_id)
            self.commits[job_id] = 0
            self.claims[job_id] = []
            self._claim(job_id)

    # One rule: with one for each action hypothesis leaves most of them out of most runs.
    @rule(action=st.sampled_from(ACTIONS), which=st.integers(0, N_JOBS - 1), age=st.sampled_from([0, 0, 0, 1]))
    def act(self, action: str, which: int, age: int) -> None:
        job_id = self.job_ids[which]
        match action:
            case "claim":
                self._claim(job_id)
            case "cancel":
                self._cancel(job_id)
            case "sweep":
                self._sweep()
            case "a moment passes" | "a lease passes":
                move_clock(self.database, 10.0 if action == "a moment passes" else LEASE_S + 1)
            case "succeed":
                self.commits[job_id] += self._use_claim(job_id, age, WORK[action])
            case _:
                self._use_claim(job_id, age, WORK[action])

    def _claim(self, job_id: str) -> None:
        was = read(self.database, job_id)
        claimed = claim(self.database, job_id)
        if claimed is not None:
            assert was.status == "queued"
            self.claims[job_id].append(claimed)

    def _cancel(self, job_id: str) -> None:
        was = read(self.database, job_id).status
        try:
            with self.database.session() as session:
                jobs.request_cancel(session, "a", job_id)
        except JobFinished:
            assert was in TERMINAL_STATUSES
        else:
            expected = {"queued": "cancelled", "running": "cancelling", "cancelling": "cancelling"}
            assert read(self.database, job_id).status == expected[was]

    def _sweep(self) -> None:
        self.sweeper.run_once()
        with self.database.session() as session:
            overdue = session.execute(
                text(
                    "SELECT id FROM jobs WHERE lease_until < now() OR (deadline_at < now() AND finished_at IS NULL"
                    " AND status <> 'cancelling') OR (status = 'queued' AND attempt >= max_attempts)"
                )
            )
            assert overdue.all() == []

    def _use_claim(self, job_id: str, age: int, action: Any) -> bool:
        """Act with the newest claim of the job, or an older one; refused if and only if it no longer holds."""
        if len(self.claims[job_id]) <= age:
            return False
        claimed = self.claims[job_id][-1 - age]
        with self.database.session() as session:
            query = text("SELECT status FROM jobs WHERE id = :id AND lease_until > now()")
            leased = session.execute(query, {"id": job_id}).scalar()
        holding = leased if age == 0 else None
        try:
            with self.database.session() as session:
                action(session, claimed)
        except JobCancelled:
            assert holding == "cancelling"
            return False
        except Fenced:
            assert holding is None or (holding == "running" and action is attempts.finish_cancelled)
            return False
        assert holding is not None
        return True

    @invariant()
    def promises_hold(self) -> None:
        with self.database.session() as session:
            found = list(session.scalars(select(Job)))
            told: dict[str, list[Event]] = {job.id: [] for job in found}
            for event in session.scalars(select(Event).order_by(Event.seq)):
                told[event.job_id].append(event)
        for job in found:
            self._ended_jobs_never_change(job)
            self._results_are_committed_exactly_once(job)
            self._events_have_no_gaps_and_tell_the_status(job, told[job.id])
            assert job.fence >= self.fences.get(job.id, 0)
            self.fences[job.id] = job.fence
            assert 0 <= job.attempt <= job.max_attempts

    def _ended_jobs_never_change(self, job: Job) -> None:
        state = (job.status, job.result, job.error)
        if job.status in TERMINAL_STATUSES:
            assert self.ended.setdefault(job.id, state) == state
            assert job.finished_at is not None
        assert job.id not in self.ended or job.status in TERMINAL_STATUSES

    def _results_are_committed_exactly_once(self, job: Job) -> None:
        assert self.commits[job.id] == (job.status == "succeeded")
        assert (job.result is not None) == (job.status == "succeeded")
        assert (job.error is not None) == (job.status == "failed")

    def _events_have_no_gaps_and_tell_the_status(self, job: Job, told: list[Event]) -> None:
        assert [event.seq for event in told] == list(range(1, job.event_seq + 1))
        statuses = [event.data["status"] for event in told if event.type == "status"]
        assert statuses[0] == "queued"
        assert statuses[-1] == job.status
        for before, after in pairwise(statuses):
            assert after in jobs.LEGAL_CHANGES[before]


@pytest.mark.integration
def test_no_order_of_events_breaks_a_job(database: Database, settings: Settings) -> None:
    sweeper = make_sweeper(settings, database)
    sweeper.collect_garbage = lambda: None  # type: ignore[method-assign]  # blobs play no part here
    machine = type("BoundJobLife", (JobLife,), {"database": database, "sweeper": sweeper})
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # each example takes a second: there is no time to look for a shorter one
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
