"""The one table of everything that can go wrong on demand: name, sentence, scope, usual strength, and what it does to a good reply.

A misbehaviour of scope `life` has no spoiler: `script.py` and `luma.py` read its name. This file knows of no route and no socket.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from tracker.simulator import wire
from tracker.simulator.messages import Conduct, Reply

Spoiler = Callable[[Reply, float], Reply]

_GATEWAY_PAGE = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502 Bad Gateway</h1></body>\r\n</html>\r\n"
_CHALLENGE_PAGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Checking your browser.</body></html>"

_HUGE = 50_000_000
_BOMB = 200_000_000


class Scope(StrEnum):
    """Where a misbehaviour strikes: one answer about a state, the generation's whole life, or its files."""

    ANSWER = "answer"
    LIFE = "life"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """One way to go wrong. It strikes the first `times` answers (None: all), or, with `window`, during the first `seconds` of a life."""

    name: str
    scope: Scope
    sentence: str
    spoil: Spoiler | None = None
    times: int | None = None
    seconds: float = 0.0
    window: bool = False


def relay_error(code: str, status: int, message: str | None = None) -> Reply:
    """An error as new-api based relays print it on their task routes."""
    return Reply.json({"code": code, "message": code if message is None else message, "data": None}, status)


def unauthorized(_: Reply | None = None, __: float = 0.0) -> Reply:
    return Reply.json({"error": {"message": "Invalid token", "type": "new_api_error", "code": ""}}, 401)


def not_found(status: int) -> Reply:
    """The unknown task as new-api (400) or one-hub (404) answers it."""
    return relay_error("task_not_exist", status, "task_not_exist" if status == 400 else "")  # noqa: PLR2004 - the HTTP status


def _instead(reply: Reply) -> Spoiler:
    return lambda _, __: reply


def _played(conduct: Conduct) -> Spoiler:
    return lambda good, _: good.but(conduct=conduct)


def _timed(conduct: Callable[[float], Conduct]) -> Spoiler:
    return lambda good, seconds: good.but(conduct=conduct(seconds))


def _edited(**changes: object) -> Spoiler:
    def spoil(good: Reply, _: float) -> Reply:
        try:
            content = json.loads(good.body)
        except ValueError:
            return good
        return Reply.json({**content, **changes}, good.status) if isinstance(content, dict) else good

    return spoil


def _truncated(good: Reply, _: float) -> Reply:
    return good.but(body=good.body[: len(good.body) * 2 // 3])


def _retry_after(_: Reply, seconds: float) -> Reply:
    return relay_error("rate_limited", 429).but(headers=(("Retry-After", f"{seconds:g}"),))


async def _garbage(connection: wire.Wire, _: bytes) -> None:
    connection.write(b"\x16\x03\x01 this is not HTTP at all\r\n\r\n")
    connection.close()


def _huge(_: Reply, __: float) -> Reply:
    head = b'{"id":"huge","state":"processing","padding":"'
    return Reply(200, head + b"x" * (_HUGE - len(head) - 2) + b'"}', conduct=wire.poured)


@cache
def _bomb_bytes() -> bytes:
    return gzip.compress(b'{"state":"' + b"0" * _BOMB + b'"}', compresslevel=6, mtime=0)


def _bomb(_: Reply, __: float) -> Reply:
    return Reply(200, _bomb_bytes(), headers=(("Content-Encoding", "gzip"),))


def _answers() -> list[Misbehaviour]:
    quota_429 = {"error": {"message": "user quota is not enough", "type": "new_api_error", "code": "insufficient_user_quota"}}
    quota_403 = relay_error("quota_not_enough", 403, "user quota is not enough")
    away = Reply(302, headers=(("Location", "/elsewhere"),))
    page = Reply(200, _CHALLENGE_PAGE, "text/html; charset=utf-8")
    rows: list[tuple[str, str, Spoiler, float]] = [
        ("slow", "answers rightly, but only after N seconds", _timed(wire.slow), 5.0),
        ("drip", "sends the body one byte every N seconds", _timed(wire.drip), 0.2),
        ("hang", "takes the request and never answers", _played(wire.hang), 0.0),
        ("reset", "resets the connection instead of answering", _played(wire.reset), 0.0),
        ("garbage", "answers with bytes that are not HTTP and closes", _played(_garbage), 0.0),
        ("cutbody", "promises more bytes by Content-Length than it sends, then closes", _played(wire.cut), 0.0),
        ("halfclose", "sends half of the body, closes its direction and keeps the connection", _played(wire.half_close), 0.0),
        ("http500", "500 with the relay's JSON error", _instead(relay_error("get_task_failed", 500)), 0.0),
        ("http502", "502 with a gateway's HTML page", _instead(Reply(502, _GATEWAY_PAGE, "text/html")), 0.0),
        ("http503", "503 with a short text", _instead(Reply(503, b"Service Unavailable", "text/plain")), 0.0),
        ("http504", "504 with an empty body", _instead(Reply(504)), 0.0),
        ("http429", "429 with `Retry-After: N`", _retry_after, 2.0),
        ("http429bare", "429 with an empty body and no Retry-After", _instead(Reply(429)), 0.0),
        ("quota403", "403 quota_not_enough: the account is out of quota", _instead(quota_403), 0.0),
        ("quota429", "429 that means out of quota (insufficient_user_quota), not too fast", _instead(Reply.json(quota_429, 429)), 0.0),
        ("forbidden", "403 that has nothing to do with quota", _instead(relay_error("forbidden", 403, "access denied")), 0.0),
        ("truncated", "JSON that stops at two thirds, with a matching Content-Length", _truncated, 0.0),
        ("empty", "200 with an empty body", _instead(Reply(200)), 0.0),
        ("wrongtype", "the right JSON, labelled text/html", lambda good, _: good.but(media_type="text/html"), 0.0),
        ("page", "200 with a challenge page in HTML", _instead(page), 0.0),
        ("list", "200 with a JSON list where an object belongs", _instead(Reply.json([])), 0.0),
        ("nostate", "the right JSON with `state` null", _edited(state=None), 0.0),
        ("wrongid", "the answer about another generation", _edited(id="00000000-0000-4000-8000-000000000000"), 0.0),
        ("redirect", "302 to another path of this simulator (seen in the path counts if followed)", _instead(away), 0.0),
        ("huge", "a JSON body of 50 MB", _huge, 0.0),
        ("bomb", "a gzip body of 200 kB that unpacks to 200 MB", _bomb, 0.0),
    ]
    return [Misbehaviour(name, Scope.ANSWER, sentence, spoil, times=3, seconds=seconds) for name, sentence, spoil, seconds in rows]


def _windows() -> list[Misbehaviour]:
    rows: list[tuple[str, str, Spoiler, float]] = [
        ("notfound400", "unknown (400, new-api's form) for the first N seconds", _instead(not_found(400)), 5.0),
        ("notfound404", "unknown (404, one-hub's form) for the first N seconds", _instead(not_found(404)), 5.0),
        ("unauthorized", "401 for the first N seconds", unauthorized, 10.0),
    ]
    timed = [Misbehaviour(name, Scope.ANSWER, sentence, spoil, seconds=seconds, window=True) for name, sentence, spoil, seconds in rows]
    return [
        *timed,
        Misbehaviour("missing400", Scope.ANSWER, "unknown (400) for ever", _instead(not_found(400))),
        Misbehaviour("missing404", Scope.ANSWER, "unknown (404) for ever", _instead(not_found(404))),
    ]


def _lives() -> list[Misbehaviour]:
    rows = [
        ("failed", "fails at its end, the reason in `failure_reason`", 0.0),
        ("failreason", "fails at its end, the reason in `fail_reason`", 0.0),
        ("statereason", "fails at its end, the reason in `state_reason`", 0.0),
        ("errormessage", "fails at its end, the reason in `error.message`", 0.0),
        ("moderated", "fails at once after its queue, with a moderation reason in `failure_reason`", 0.0),
        ("mute", "fails at its end without any reason", 0.0),
        ("neverends", "stays `processing` for ever", 0.0),
        ("backwards", "goes from processing back to pending and on again, before it completes", 0.0),
        ("unknown", "says `reticulating` instead of `processing`, then completes (with `_always`: says it for ever)", 0.0),
        ("nourl", "says completed without any URL for N seconds, then with them", 5.0),
        ("nodownload", "completes with an empty `download_url`; `url` is good", 0.0),
    ]
    return [Misbehaviour(name, Scope.LIFE, sentence, seconds=seconds) for name, sentence, seconds in rows]


def _files() -> list[Misbehaviour]:
    endless, thrice = None, 3
    rows: list[tuple[str, str, Spoiler | None, float, int | None]] = [
        ("expire", "its links are signed and answer 403 N seconds after the answer that carried them", None, 30.0, endless),
        ("cutfile", "the transfer stops half-way with an orderly end", _played(wire.cut), 0.0, thrice),
        ("resetfile", "the transfer is reset half-way", _played(wire.cut_by_reset), 0.0, thrice),
        ("hangfile", "the download is never answered", _played(wire.hang), 0.0, thrice),
        ("slowfile", "the transfer takes N seconds", _timed(wire.spread), 20.0, endless),
        ("file500", "the download answers 500", _instead(Reply(500, b"Internal Server Error", "text/plain")), 0.0, thrice),
        ("file404", "the file does not exist", _instead(Reply(404, b"Not Found", "text/plain")), 0.0, endless),
        ("filepage", "200 with an HTML page instead of the file", _instead(Reply(200, _CHALLENGE_PAGE, "text/html")), 0.0, thrice),
        ("emptyfile", "200 with no bytes", lambda good, _: good.but(body=b"", length=None), 0.0, thrice),
        ("changing", "every download has other bytes and another ETag", None, 0.0, endless),
        ("norange", "ranges are ignored: always 200 and the whole file", None, 0.0, endless),
        ("nolength", "no Content-Length: chunked transfer coding", None, 0.0, endless),
        ("bigfile", "the mp4 has 64 MB (padding that players skip)", None, 0.0, endless),
        ("redirectfile", "the first answer is a 302 to the file", None, 0.0, endless),
    ]
    return [Misbehaviour(name, Scope.FILE, sentence, spoil, times, seconds) for name, sentence, spoil, seconds, times in rows]


MISBEHAVIOURS = {row.name: row for row in (*_answers(), *_windows(), *_lives(), *_files())}


def listing() -> str:
    """The table for people, one line each: name, scope, usual strength, sentence."""
    return "\n".join(f"{row.name:<13} {row.scope:<7} {_strength(row):<8} {row.sentence}" for row in MISBEHAVIOURS.values())


def _strength(row: Misbehaviour) -> str:
    return " ".join(filter(None, [f"{row.times}x" if row.times else "", f"{row.seconds:g}s" if row.seconds else ""])) or "-"
