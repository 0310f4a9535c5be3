"""What tests steer the simulator with: counts, rates, outages, latency, canned answers, the clock."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest


def test_counts_by_path_id_and_tenth_of_a_second(relay):
    first, second = relay.create(duration=10), relay.create(duration=10)
    for task_id in (first, first, second):
        relay.query(task_id)
    relay.get("/files/x/video.mp4")
    found = relay.stats()
    assert found["requests"] == 4
    assert found["paths"] == {"GET /luma/generations/{id}": 3, "GET /files/{id}/video.mp4": 1}
    assert found["queries"] == {first: 2, second: 1}
    assert found["statuses"] == {"200": 3, "404": 1}
    assert sum(count for _, count in found["history"]) == 4
    assert "queries" not in relay.get("/simulator/stats?ids=no").json()


def test_the_story_of_one_generation_has_the_time_of_every_question(relay):
    task_id = relay.create(queue=1, duration=10)
    relay.query(task_id)
    relay.advance(30)
    relay.query(task_id)
    story = relay.get(f"/simulator/generations/{task_id}").json()
    assert (story["state"], story["queue"], story["duration"], story["misbehaviour"]) == ("completed", 1.0, 10.0, None)
    before, after = story["queries"]
    assert 30 <= after - before < 35
    assert relay.get("/simulator/generations/nope").status_code == 404


def test_the_most_requests_in_flight_are_counted(relay):
    relay.post("/simulator/faults", {"latency_ms": 300})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: relay.raw("/luma/generations/x", enough=1), range(8)))
    found = relay.stats()
    assert (found["most_in_flight"], found["in_flight"]) == (8, 0)


def test_latency_delays_each_answer_without_queueing_them(relay):
    relay.post("/simulator/faults", {"latency_ms": 250})
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: relay.raw("/luma/generations/x", enough=1), range(16)))
    assert 0.25 <= time.monotonic() - began < 2


def test_rates_spoil_their_share_of_all_answers(relay):
    relay.post("/simulator/faults", {"rates": {"http500": 0.3, "http429bare": 0.2}})
    task_id = relay.create(duration=0)
    found = [relay.query(task_id).status_code for _ in range(300)]
    assert 60 < found.count(500) < 120
    assert 35 < found.count(429) < 90
    assert found.count(200) > 110


def test_rates_of_lives_and_files_strike_at_submit(relay):
    relay.post("/simulator/faults", {"rates": {"failed": 0.5, "cutfile": 0.5}})
    found = {relay.post("/luma/generations", {"user_prompt": "x"}).json()["id"].split("-")[0] for _ in range(20)}
    assert found == {"failed", "cutfile"}


@pytest.mark.parametrize(("kind", "status"), [("http503", 503), ("http502", 502)])
def test_an_outage_hits_everything_but_the_controls_and_ends_by_the_clock(relay, kind, status):
    task_id = relay.create(duration=0)
    relay.post("/simulator/faults", {"outage": kind, "seconds": 900})
    assert relay.query(task_id).status_code == status
    assert relay.get(f"/files/{task_id}/video.mp4").status_code == status
    assert relay.get("/nowhere").status_code == status
    relay.advance(901)
    assert relay.query(task_id).status_code == 200


def test_an_outage_may_reset_or_hang_until_it_is_lifted(relay):
    task_id = relay.create(duration=0)
    relay.post("/simulator/faults", {"outage": "reset"})
    assert relay.raw(f"/luma/generations/{task_id}") == (b"", "reset")
    relay.post("/simulator/faults", {"outage": "hang"})
    assert relay.raw(f"/luma/generations/{task_id}", seconds=0.2) == (b"", "open")
    relay.post("/simulator/faults", {"outage": None})
    assert relay.query(task_id).status_code == 200


def test_reset_makes_it_as_just_started(relay):
    relay.post("/simulator/faults", {"rates": {"http500": 1}, "latency_ms": 50})
    relay.advance(1000)
    relay.post("/simulator/answers", {"path": "/x", "body": "{}"})
    relay.query("x")
    relay.post("/simulator/reset", {})
    assert relay.get("/simulator/faults").json() == {
        "batch": "array",
        "spoil_batch": False,
        "not_found": 400,
        "latency_ms": 0.0,
        "rates": {},
        "outage": "",
        "outage_ends": None,
    }
    assert abs(relay.post("/simulator/clock", {}).json()["now"] - time.time()) < 5
    assert relay.get("/x").status_code == 404
    assert relay.stats()["requests"] == 1


def test_many_generations_at_once(relay):
    answer = relay.post("/simulator/generations", {"count": 5000, "duration": 3600}).json()
    assert len(set(answer["ids"])) == 5000
    assert answer["id"] == answer["ids"][0]
    assert relay.query(answer["ids"][-1]).json()["state"] == "processing"


def test_a_path_can_be_given_exact_bytes(relay):
    body = '{"id": "4665a07c",\n  "stätè": 1.50}'
    relay.post("/simulator/answers", {"path": "/kling/v1/x", "body": body, "status": 201, "headers": {"X-Own": "1"}})
    answer = relay.get("/kling/v1/x")
    assert (answer.status_code, answer.content, answer.headers["x-own"]) == (201, body.encode(), "1")
    relay.post("/simulator/answers", {"path": "/kling/v1/x"})
    assert relay.get("/kling/v1/x").status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {"rates": {"nonsense": 1}}),
        ("faults", {"rates": {"http500": 0.7, "http502": 0.7}}),
        ("faults", {"rates": 7}),
        ("faults", {"rates": {"http500": "x"}}),
        ("faults", {"outage": "earthquake"}),
        ("faults", {"outage": "hang", "seconds": "x"}),
        ("faults", {"latency_ms": -1}),
        ("faults", {"unknown": 1}),
        ("clock", {"advance": -1}),
        ("clock", {"advance": "x"}),
        ("generations", {"count": 0}),
        ("generations", {"count": 100_001}),
        ("generations", {"duration": "x"}),
        ("generations", {"duration": -1}),
        ("generations", {"surprise": 1}),
        ("generations", {"misbehaviour": "nonsense"}),
        ("answers", {"path": 7}),
        ("clock", [1]),
    ],
)
def test_wrong_controls_are_refused_with_a_reason(relay, path, body):
    answer = relay.post(f"/simulator/{path}", body)
    assert answer.status_code == 400, answer.text
    assert len(answer.json()["message"]) > 10


def test_the_connection_is_kept_and_pipelined_requests_are_answered_in_order(relay):
    ids = [relay.create(duration=0, misbehaviour=name) for name in ("slow_1x_0.2s", "failed", "neverends")]
    ask = "".join(
        f"GET /luma/generations/{task_id} HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer x\r\n\r\n" for task_id in ids
    )
    with socket.create_connection(("127.0.0.1", relay.port), timeout=5) as connection:
        connection.sendall(ask.encode())
        found = b""
        while not all(task_id.encode() + b'","state' in found for task_id in ids):
            found += connection.recv(65_536)
    assert found.index(ids[0].encode()) < found.index(ids[1].encode()) < found.index(ids[2].encode())


def test_broken_requests_get_400_and_too_large_ones_413(relay):
    with socket.create_connection(("127.0.0.1", relay.port), timeout=5) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert relay.session.post(f"{relay.url}/luma/tasks", data=b"x" * 9_000_000, timeout=10).status_code == 413
    assert (
        relay.session.post(
            f"{relay.url}/luma/tasks", data=b"{", headers={"Authorization": "Bearer x"}, timeout=5
        ).status_code
        == 400
    )


def test_http_1_0_closes_after_the_answer(relay):
    with socket.create_connection(("127.0.0.1", relay.port), timeout=5) as connection:
        connection.sendall(b"GET /luma/generations/x HTTP/1.0\r\n\r\n")
        found = b""
        while piece := connection.recv(65_536):
            found += piece
    assert b"Connection: close" in found
