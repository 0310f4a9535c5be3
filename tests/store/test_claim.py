"""The claim: whose polls go out, how many, and that it reads no more than it needs."""

from __future__ import annotations

import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from math import exp
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tracker.core.pausing import FAILING
from tracker.core.schedule import EDGES, Clock
from tracker.store import due, flights
from tracker.store.db import Database
from tracker.store.due import SHORTEST_CLAIM, TOGETHER
from tracker.store.flights import BURST
from tracker.store.ready import Starts

from .conftest import Rows


def test_a_claim_moves_each_poll_to_its_next_time(rows: Rows) -> None:
    credential, clock = rows.credential("a"), rows.clock()
    rows.polls(10, credential, clock, age="interval '20 s'")
    now = rows.now()
    claims = rows.claim(now=now)
    assert len(claims) == 10
    assert {fence for _, fence in claims} == {1}
    for due_at, asked_at in rows.all("SELECT due_at, asked_at FROM polls"):
        assert (due_at - now).total_seconds() >= SHORTEST_CLAIM
        assert asked_at == now
    assert rows.claim(now=now) == [], "nothing is due any more"
    again = rows.claim(now=now + timedelta(minutes=2))
    assert {fence for _, fence in again} == {2}
    assert rows.scalar("SELECT count(*) FROM polls WHERE watched_at = :now", now=now) == 10


def test_the_timeout_bounds_the_next_look(rows: Rows) -> None:
    credential, clock = rows.credential("a"), rows.clock()
    rows.polls(1, credential, clock, age="interval '1 h'")
    rows.run("UPDATE polls SET timeout_at = now() + interval '17 s'")
    rows.claim()
    left = rows.scalar("SELECT extract(epoch FROM due_at - timeout_at)::float8 FROM polls")
    assert abs(left) < 0.5


def test_each_account_gets_its_own_allowance(rows: Rows) -> None:
    clock = rows.clock()
    accounts = [
        rows.credential("rich"),
        rows.credential("slow", rate=10, tokens=3),
        rows.credential("narrow", concurrency=7),
    ]
    for credential in accounts:
        rows.polls(100, credential, clock)
    got = rows.whose(rows.claim(limit=1000))
    assert got == {accounts[0]: 100, accounts[1]: pytest.approx(3, abs=1), accounts[2]: 7}
    assert rows.whose(rows.claim(limit=1000)).keys() <= {accounts[1]}, "the narrow one's requests are still in flight"


def test_landing_makes_room_and_so_does_a_dead_worker_in_time(rows: Rows) -> None:
    credential, clock = rows.credential("narrow", concurrency=4), rows.clock()
    rows.polls(20, credential, clock)
    now = rows.now()
    assert len(rows.claim(now=now)) == 4
    assert rows.claim(now=now + timedelta(seconds=1)) == []
    with rows.database.transaction() as tx:
        batch = tx.execute(text("SELECT batch_id FROM flights")).scalar_one()
        flights.land(tx, batch)
    assert len(rows.claim(now=now + timedelta(seconds=2))) == 4
    assert len(rows.claim(now=now + timedelta(seconds=3) + flights.FLIGHT_LEASE)) == 4


LATE = "interval '1 h'"
STOPPED = {
    "paused": "state = 'paused', paused_reason = 'x', paused_at = now(), probe_at = now() + interval '1 h'",
    "blocked": "blocked_until = now() + interval '1 h'",
    "throttled": "requests_per_second = 1, tokens = 0",
}


def test_a_great_backlog_of_a_stopped_account_delays_nobody(rows: Rows) -> None:
    clock = rows.clock()
    stopped, healthy = rows.credential("stopped"), rows.credential("healthy")
    rows.polls(50_000, stopped, clock, due="interval '1 h'")
    rows.polls(50, healthy, clock)
    rows.run("ANALYZE")
    for how, change in STOPPED.items():
        rows.run(
            "UPDATE credentials SET state = 'active', paused_reason = NULL, paused_at = NULL, probe_at = NULL, blocked_until = NULL"
        )
        rows.run(f"UPDATE credentials SET {change} WHERE id = :id", id=stopped)
        rows.run("UPDATE polls SET due_at = now() WHERE credential_id = :id", id=healthy)
        began = time.monotonic()
        got = rows.whose(rows.claim())
        took = time.monotonic() - began
        assert got[healthy] == 50, how
        assert got.get(stopped, 0) <= 2, how
        assert took < 1.0, f"{how}: and the backlog is not read"


def test_a_paused_account_is_probed_by_one_request(rows: Rows) -> None:
    credential, clock = rows.credential("a"), rows.clock()
    rows.polls(50, credential, clock)
    rows.run(
        "UPDATE credentials SET state = 'paused', paused_reason = 'x', paused_at = now(), probe_at = now() - interval '1 s'"
    )
    now = rows.now()
    assert len(rows.claim(now=now)) == 1
    (probes, probe_at) = rows.all("SELECT probes, probe_at FROM credentials")[0]
    assert (probes, probe_at) == (1, now + timedelta(minutes=2))
    assert rows.claim(now=now + timedelta(seconds=119)) == []
    assert len(rows.claim(now=now + timedelta(seconds=121))) == 1


def test_an_account_that_failed_is_asked_one_question_until_its_answer_is_known(rows: Rows) -> None:
    credential, clock = rows.credential("a"), rows.clock()
    rows.polls(50, credential, clock)
    rows.run("UPDATE credentials SET failing = :failing, blocked_until = now() - interval '1 s'", failing=FAILING + 5)
    now = rows.now()
    assert len(rows.claim(now=now)) == 1
    assert [len(rows.claim(now=now + timedelta(seconds=0.2 * n))) for n in range(1, 5)] == [0, 0, 0, 0]
    with rows.database.transaction() as tx:
        flights.land(tx, tx.execute(text("SELECT batch_id FROM flights")).scalar_one())
    assert len(rows.claim(now=now + timedelta(seconds=2))) == 1, "it landed, and blocked nobody"
    assert len(rows.claim(now=now + timedelta(seconds=3) + flights.FLIGHT_LEASE)) == 1, (
        "a worker that died is not waited for"
    )


def test_accounts_whose_answers_do_not_come_leave_threads_to_the_others(rows: Rows) -> None:
    """Two hang, the second from the fifth second on: for 15 seconds, as long as an answer may take."""
    first, second, healthy = (rows.credential(name) for name in ("first", "second", "healthy"))
    clock = rows.clock()
    rows.polls(500, first, clock)
    rows.run("UPDATE credentials SET requests_per_second = 10")
    now, open_ = rows.now(), {first: 0, second: 0}
    for n in range(75):
        at = now + timedelta(seconds=0.2 * n)
        rows.polls(1, healthy, clock, due="interval '1 min'")
        if n == 25:
            rows.polls(500, second, clock, due="interval '1 min'")
        got = rows.whose(rows.claim(now=at))
        assert got[healthy] >= 1
        for hanging in open_:
            open_[hanging] += hanging in got
        with rows.database.transaction() as tx:
            for batch in tx.execute(text("SELECT DISTINCT batch_id FROM flights WHERE NOT taken")).scalars().all():
                flights.launch(tx, batch, at)
            tx.execute(text("DELETE FROM flights WHERE credential_id = :id"), {"id": healthy})
    assert 5 <= open_[first] <= 9
    assert 5 <= open_[second] <= 6
    assert sum(open_.values()) < 16, "as many batches as one process sees through"
    rows.run("DELETE FROM flights WHERE credential_id = :id", id=first)
    assert first in rows.whose(rows.claim(now=at)), "its own have landed"


def test_an_account_that_failed_is_held_back_at_once_while_others_hang(rows: Rows) -> None:
    hanging, failed, clock = rows.credential("hanging"), rows.credential("failed"), rows.clock()
    rows.polls(50, failed, clock)
    rows.run("UPDATE credentials SET failing = 3, requests_per_second = 10 WHERE id = :id", id=failed)
    now = rows.now()
    assert failed in rows.whose(rows.claim(limit=5, now=now)), "nothing is known against it but failures"
    for _ in range(4):
        rows.run(
            "INSERT INTO flights (batch_id, credential_id, asks, taken, until) VALUES (gen_random_uuid(), :id, 1, true, :until)",
            id=hanging, until=now + flights.FLIGHT_LEASE - timedelta(seconds=2),
        )  # fmt: skip
    assert rows.claim(limit=5, now=now + timedelta(seconds=0.2)) == []
    rows.run("DELETE FROM flights WHERE credential_id = :id", id=failed)
    assert rows.claim(limit=5, now=now + timedelta(seconds=0.4)), "but its own have landed"


def test_answers_that_take_long_are_no_messages_that_wait(rows: Rows) -> None:
    credential, clock = rows.credential("a"), rows.clock()
    rows.polls(1, credential, clock)
    now = rows.now()
    rows.claim(now=now)
    with rows.database.transaction() as tx:
        (batch,) = tx.execute(text("SELECT batch_id FROM flights")).scalars()
        assert flights.unread(tx, now) == 1
        assert flights.launch(tx, batch, now)
        late = now + flights.FLIGHT_LEASE - timedelta(seconds=5)
        assert flights.unread(tx, late) == 0
        assert not flights.launch(tx, batch, late), "nor taken a second time"


def test_releasing_locks_in_the_order_of_the_ids(rows: Rows) -> None:
    credential, clock = rows.credential("a"), rows.clock()
    rows.polls(2, credential, clock)
    rows.claim()
    low, high = (row[0] for row in rows.all("SELECT generation_id FROM polls ORDER BY 1"))

    def release() -> None:
        with rows.database.transaction() as tx:
            due.release(tx, [(high, 1), (low, 1)], rows.now())

    with ThreadPoolExecutor(1) as threads:
        with rows.database.transaction() as tx:
            lock = text("SELECT FROM polls WHERE generation_id = :id FOR UPDATE NOWAIT")
            tx.execute(lock, {"id": low})
            waiting = threads.submit(release)
            until_waiting(rows)
            tx.execute(lock, {"id": high})
        waiting.result()
    assert rows.all("SELECT DISTINCT fence, asked_at FROM polls") == [(0, None)]


def until_waiting(rows: Rows) -> None:
    ends = time.monotonic() + 8
    while not rows.scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    ):
        assert time.monotonic() < ends, "nobody waits for a lock"


def test_the_sweep_of_lapsed_flights_waits_for_nobody(rows: Rows) -> None:
    credential, clock = rows.credential("a"), rows.clock()
    rows.polls(1, credential, clock)
    now = rows.now()
    rows.claim(now=now)
    later = now + timedelta(minutes=1)
    with rows.database.transaction() as landing:
        landing.execute(text("DELETE FROM flights"))
        with rows.database.transaction() as tx:
            tx.execute(text("SET LOCAL lock_timeout = '100ms'"))
            assert flights.unread(tx, later) == 0


def test_late_checks_get_only_what_the_others_leave(rows: Rows) -> None:
    credential, clock = rows.credential("a", rate=10, tokens=30), rows.clock()
    rows.run("UPDATE credentials SET requests_per_second = 30 / :burst", burst=BURST)
    rows.polls(20, credential, clock)
    rows.polls(50, credential, clock, lane=1, due="interval '2 h'")
    claims = rows.claim(limit=1000)
    lanes = dict(rows.all("SELECT lane, count(*) FROM polls WHERE fence = 1 GROUP BY 1"))
    assert lanes[0] == 20, "though the late ones are due for longer"
    assert lanes[1] == len(claims) - 20 <= 12
    waits = rows.all("SELECT extract(epoch FROM due_at - asked_at)::float8 FROM polls WHERE fence = 1 AND lane = 1")
    assert {round(row[0]) for row in waits} == {600}


def test_many_accounts_share_one_claim(rows: Rows) -> None:
    clock = rows.clock()
    accounts = [rows.credential(f"c{i}") for i in range(20)]
    for credential in accounts:
        rows.polls(60, credential, clock)
    got = rows.whose(rows.claim(limit=200))
    assert got == dict.fromkeys(accounts, 10)


def test_polls_that_share_a_request_count_a_quarter(rows: Rows) -> None:
    clock = rows.clock()
    single, many = rows.credential("single"), rows.credential("many")
    rows.run("UPDATE credentials SET batch_size = 50 WHERE id = :id", id=many)
    for credential in (single, many):
        rows.polls(1000, credential, clock)
    assert rows.whose(rows.claim(limit=200)) == {single: 100, many: 100 * TOGETHER}
    rows.run("DELETE FROM polls WHERE credential_id = :id", id=single)
    assert rows.whose(rows.claim(limit=100)) == {many: 100 * TOGETHER}


def test_a_full_claim_says_so(rows: Rows) -> None:
    clock, first, second = rows.clock(), rows.credential("a", concurrency=8), rows.credential("b")
    rows.run("UPDATE credentials SET batch_size = 2 WHERE id = :id", id=first)
    rows.polls(30, first, clock)
    rows.polls(30, second, clock)
    with rows.database.transaction() as tx:
        one, two = (rows.claimed(tx, limit=20) for _ in range(2))
    assert one is not None
    assert two is not None
    # Of the first account all eight requests that it may have in flight, for two each; of the second what they leave of the twenty.
    assert (one.total, one.full) == (28, True), "there is more"
    assert (two.total, two.full) == (18, False), "all that is due of the one, and nothing that the other may ask"


def test_a_claim_is_full_though_its_limit_is_not_a_multiple_of_the_accounts(rows: Rows) -> None:
    clock = rows.clock()
    for name in "abc":
        rows.polls(30, rows.credential(name), clock)
    with rows.database.transaction() as tx:
        claimed = rows.claimed(tx, limit=20)
    assert claimed is not None
    assert (claimed.total, claimed.full) == (20, True)


def test_in_turn_even_when_there_are_more_accounts_than_room(rows: Rows) -> None:
    clock = rows.clock()
    accounts = [rows.credential(f"c{i:03}") for i in range(100)]
    for credential in accounts:
        rows.polls(30, credential, clock)
    served: set[int] = set()
    for _ in range(4):
        served |= rows.whose(rows.claim(limit=200)).keys()
    assert served == set(accounts), "nobody waits for those who come first in the table"


def test_two_claimers_never_get_the_same_poll(rows: Rows) -> None:
    clock = rows.clock()
    for i in range(12):
        rows.polls(150, rows.credential(f"c{i}"), clock)
    now = rows.now()
    start = threading.Barrier(6)

    def claimer() -> list[tuple[UUID, int]]:
        start.wait()
        found = []
        while rows.scalar("SELECT EXISTS (SELECT FROM polls WHERE due_at <= :now)", now=now):
            found += rows.claim(limit=97, now=now)
        return found

    with ThreadPoolExecutor(6) as threads:
        runs = [threads.submit(claimer) for _ in range(6)]
        claimed = [key for run in runs for key, _ in run.result()]
    assert len(claimed) == len(set(claimed)) == 1800


def test_the_rate_holds_over_four_claimers_and_is_used(rows: Rows) -> None:
    credential, clock = rows.credential("a", rate=400, tokens=0), rows.clock()
    rows.polls(4000, credential, clock)
    taken: list[tuple[float, int]] = []
    ends = time.monotonic() + 4
    began = time.monotonic()
    rows.run("UPDATE credentials SET refilled_at = clock_timestamp()")

    def claimer() -> None:
        dice, pause = random.Random(), threading.Event()
        while time.monotonic() < ends:
            if claims := rows.claim():
                taken.append((time.monotonic(), len(claims)))
            pause.wait(dice.uniform(0, 0.05))

    with ThreadPoolExecutor(4) as threads:
        for run in [threads.submit(claimer) for _ in range(4)]:
            run.result()
    total = sum(count for _, count in taken)
    span = max(at for at, _ in taken) - began
    assert total <= 400 * span * 1.02 + 2
    assert total >= 0.95 * 400 * span - 10
    # In any window no more than its seconds' worth and what may be saved up: over 10 s that is at most 4 % more than the rate.
    for at, _ in taken:
        window = sum(count for other, count in taken if at <= other < at + 1)
        assert window <= 400 * (1 + BURST) * 1.05


def test_racing_claimers_keep_the_concurrency(rows: Rows) -> None:
    credential, clock = rows.credential("narrow", concurrency=5), rows.clock()
    rows.polls(600, credential, clock)
    with ThreadPoolExecutor(6) as threads:
        for _ in range(30):
            start = threading.Barrier(6)

            def claimer(start: threading.Barrier = start) -> None:
                start.wait()
                for _ in range(3):
                    rows.claim()

            for run in [threads.submit(claimer) for _ in range(6)]:
                run.result()
            assert rows.scalar("SELECT sum(asks) FROM flights") == 5
            rows.run("DELETE FROM flights")


@pytest.mark.parametrize("rate", [1, 2, 3, 5])
def test_a_small_budget_is_used_and_never_exceeded(rows: Rows, rate: int) -> None:
    credential, clock = rows.credential("slow", rate=rate, tokens=0), rows.clock()
    rows.polls(400, credential, clock)
    began, dice = rows.now(), random.Random(rate)
    rows.run("UPDATE credentials SET refilled_at = :now", now=began)
    at, taken = 0.0, []
    while at < 40:
        taken += [at] * len(rows.claim(now=began + timedelta(seconds=at)))
        at += 0.2 + dice.uniform(0, 0.1)  # a look takes its time, and so does the tick
    assert len(taken) >= 0.95 * rate * 40 - 1
    for n, first in enumerate(taken):
        assert sum(1 for other in taken[n:] if other < first + 10) <= 10 * rate * 1.05 + 1


MODES = ("force_custom_plan", "force_generic_plan")


def test_the_plan_reads_indexes_alone(rows: Rows) -> None:
    clock = rows.clock()
    for i in range(20):
        rows.polls(5000, rows.credential(f"c{i}"), clock, due="interval '1 h' * (random() - 0.9)")
    rows.run("ANALYZE")
    tuned = rows.database.tuned(due.SETTINGS, size=1)
    found = [plan for database in (rows.database, tuned) for mode in MODES for plan in _plans(database, mode)]
    ready, plans = [p for p in found if "LockRows" in p and "purse" not in p], [p for p in found if "purse" in p]
    assert min(len(ready), len(plans)) >= 20
    for plan in ready:
        assert not re.search("Seq Scan on polls", plan), plan
        assert "hashed SubPlan" not in plan, plan
        assert "Scan using polls_due" in plan, plan
    for plan in plans:
        assert not re.search(r"Seq Scan on (polls|generations)", plan), plan
        assert "hashed SubPlan" not in plan, plan
        assert "Scan using polls_due" in plan, plan
        assert re.search("(Scan using|Bitmap Index Scan on) polls_pkey", plan), plan
    for plan in plans[len(plans) // 2 :]:
        assert not re.search("Bitmap|Seq Scan on flights", plan), plan


def _plans(database: Database, mode: str) -> list[str]:
    """The plan of each statement of a claim, as the server logs it: taken from a connection that explains what it runs."""
    found: list[str] = []
    with database.transaction() as tx:
        connection: Any = tx.connection.driver_connection
        connection.add_notice_handler(lambda notice: found.append(notice.message_primary))
        tx.execute(text("LOAD 'auto_explain'"))
        for name, value in (
            ("auto_explain.log_min_duration", "0"),
            ("auto_explain.log_level", "notice"),
            ("client_min_messages", "notice"),
            ("plan_cache_mode", mode),
        ):
            tx.execute(text(f"SET LOCAL {name} = '{value}'"))
        now: datetime = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
        starts = Starts()
        for _ in range(7):
            due.claim(
                tx,
                batch=_uuid(tx),
                now=now,
                limit=200,
                longest=60.0,
                most_slow=4,
                probe_waits=(60.0, 120.0),
                starts=starts,
            )
    return found


def _uuid(tx: Any) -> Any:
    return tx.execute(text("SELECT gen_random_uuid()")).scalar_one()


def test_the_gap_in_sql_is_the_gap_of_the_rule(rows: Rows) -> None:
    clock = _learned()
    credential, clock_id = rows.credential("a"), rows.clock(clock=clock)
    ages = [7, 20, 45, 70, 85, 100, 130, 200, 400, 1000, 2500, 5000]
    for age in ages:
        rows.polls(40, credential, clock_id, age=f"interval '{age} s'")
    rows.claim(limit=1000)
    found = rows.all(
        "SELECT round(extract(epoch FROM asked_at - clock_from)), avg(extract(epoch FROM due_at - asked_at))::float8 FROM polls GROUP BY 1 ORDER BY 1"
    )
    assert len(found) == len(ages)
    for age, gap in found:
        rule = max(SHORTEST_CLAIM, clock.next_gap(float(age), 0.5, 60.0))
        # At the bound the jitter acts below it alone.
        assert gap == pytest.approx(rule * (1 - 0.05 * (rule == 60.0)), rel=0.08), f"at {age} s"


def test_a_longest_gap_of_its_own_may_be_longer_than_the_installations_and_is_never_exceeded(rows: Rows) -> None:
    clock = _learned()
    credential, clock_id = rows.credential("a"), rows.clock(clock=clock)
    rows.polls(300, credential, clock_id, age="interval '7 s'")
    rows.run("UPDATE polls SET longest = 300")
    rows.claim(limit=1000)
    gap = rows.scalar("SELECT avg(extract(epoch FROM due_at - asked_at))::float8 FROM polls")
    assert gap == pytest.approx(clock.next_gap(7, 0.5, 300), rel=0.08)


def test_who_wait_as_long_as_they_may_do_not_stay_in_step(rows: Rows) -> None:
    credential, clock_id = rows.credential("a"), rows.clock()
    rows.polls(400, credential, clock_id, age="interval '50 min'")
    rows.run("UPDATE polls SET longest = 20")
    rows.claim(limit=1000)
    gaps = [row[0] for row in rows.all("SELECT extract(epoch FROM due_at - asked_at)::float8 FROM polls ORDER BY 1")]
    assert 18 <= gaps[0] < 18.3
    assert 19.7 < gaps[-1] <= 20
    assert max(sum(1 for gap in gaps if low <= gap < low + 0.2) for low in gaps) < 80, (
        "of 400, of which 40 are expected"
    )


def test_a_price_of_its_own_stretches_the_gap_as_its_square_root(rows: Rows) -> None:
    clock = Clock()
    credential, clock_id = rows.credential("a"), rows.clock(clock=clock)
    rows.polls(200, credential, clock_id, age="interval '100 s'")
    rows.run("UPDATE polls SET price = 2.0, longest = 300")
    rows.claim(limit=1000)
    gap = rows.scalar("SELECT avg(extract(epoch FROM due_at - asked_at))::float8 FROM polls")
    assert gap == pytest.approx(clock.next_gap(100, 2.0, 300), rel=0.08)


def _learned() -> Clock:
    """A clock that has seen 200 tasks of about 90 seconds."""
    clock, dice = Clock(), random.Random(7)
    for _ in range(200):
        end, before = dice.gauss(90, 12), 0.0
        while before < end:
            after = before + 6
            clock.observe(before, after, done=after >= end)
            before = after
    assert EDGES[-1] == pytest.approx(3600)
    return clock


def _stretch(rows: Rows, credential: int, clock_id: int, count: int, lag: float) -> float:
    """How many times the rule's gap lies between a claimed poll and its next one, where so many are due for so long."""
    rows.run("DELETE FROM generations")
    rows.run("DELETE FROM flights")
    rows.polls(count, credential, clock_id, age="interval '300 s'", due=f"interval '{lag} s'")
    now = rows.now()
    claimed = rows.claim(limit=1000, now=now)
    assert claimed
    query = "SELECT avg(extract(epoch FROM due_at - asked_at))::float8 FROM polls WHERE asked_at = :now"
    return float(rows.scalar(query, now=now)) / Clock().next_gap(300, 0.5, 60.0)


def test_a_lag_stretches_gaps_where_the_budget_binds(rows: Rows) -> None:
    credential, clock_id = rows.credential("a", rate=20), rows.clock()
    for lag, factor in ((0, 1.0), (8, 1.65), (3600, 4.0)):
        rows.run("UPDATE credentials SET tokens = 8, refilled_at = clock_timestamp()")
        assert _stretch(rows, credential, clock_id, 1000, lag) == pytest.approx(factor, rel=0.15), f"after {lag} s"
    rows.run("UPDATE credentials SET requests_per_second = 1e6, tokens = 1e6, concurrency = 8")
    assert _stretch(rows, credential, clock_id, 4000, 8) == pytest.approx(1.65, rel=0.15), "room binds like tokens"


def test_what_a_stand_still_left_behind_stretches_nothing_but_what_it_takes_to_catch_up(rows: Rows) -> None:
    rich, clock_id = rows.credential("rich"), rows.clock()
    assert _stretch(rows, rich, clock_id, 100, 3600) == pytest.approx(1.0, rel=0.05)
    modest = rows.credential("modest", rate=20)
    for count, seconds in ((1, 0), (8, 0), (10, 0.1), (88, 4)):
        rows.run("UPDATE credentials SET tokens = 8, refilled_at = clock_timestamp() WHERE id = :id", id=modest)
        assert _stretch(rows, modest, clock_id, count, 3600) == pytest.approx(exp(seconds / 16), rel=0.12), (
            f"{count} due"
        )


def test_a_probe_after_a_long_pause_is_followed_as_soon_as_ever(rows: Rows) -> None:
    credential, clock_id = rows.credential("a"), rows.clock()
    rows.run(
        "UPDATE credentials SET state = 'paused', paused_reason = 'x', paused_at = now(), probe_at = now() - interval '1 s'"
    )
    assert _stretch(rows, credential, clock_id, 5000, 3600) <= 1.2, "one poll, a tenth more or less than the rule's gap"


def test_late_checks_shorten_no_gap(rows: Rows) -> None:
    credential, clock_id = rows.credential("a", rate=0.1, tokens=1), rows.clock()
    rows.run("UPDATE credentials SET batch_size = 100, refilled_at = clock_timestamp()")
    rows.polls(95, credential, clock_id, due=LATE, lane=1)
    rows.polls(5, credential, clock_id, age="interval '300 s'", due=LATE)
    assert len(rows.claim(limit=1000)) == 100
    gap = rows.scalar("SELECT avg(extract(epoch FROM due_at - asked_at))::float8 FROM polls WHERE lane = 0")
    assert gap == pytest.approx(Clock().next_gap(300, 0.5, 60.0), rel=0.1)
