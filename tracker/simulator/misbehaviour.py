"""The one table of everything that can go wrong on demand: name, sentence, scope, usual strength, and what it does to a good reply.

A misbehaviour of scope `life` has no spoiler: `script.py` and `luma.py` read its name. This file knows of no route and no socket.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from tracker.simulator import wire
from tracker.simulator.messages import Conduct, Reply

Spoiler = Callable[[Reply, float], Reply]

_GATEWAY_PAGE = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502 Bad Gateway</h1></body>\r\n</html>\r\n"
)
_CHALLENGE_PAGE = (
    b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Checking your browser.</body></html>"
)

_HUGE = 50_000_000
_BOMB_MB = 100
_GZIP = 31  # zlib's window bits for the gzip format

# Usual number of answers that are hit: more than one, so that a single retry does not get past it.
_THRICE = 3


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
    packer, zeros = zlib.compressobj(level=1, wbits=_GZIP), b"0" * 1_000_000
    pieces = [
        packer.compress(b'{"state":"'),
        *(packer.compress(zeros) for _ in range(_BOMB_MB)),
        packer.compress(b'"}'),
    ]
    return b"".join([*pieces, packer.flush()])


def _bomb(_: Reply, __: float) -> Reply:
    return Reply(200, _bomb_bytes(), headers=(("Content-Encoding", "gzip"),))


def _answer(name: str, sentence: str, spoil: Spoiler, seconds: float = 0.0) -> Misbehaviour:
    return Misbehaviour(name, Scope.ANSWER, sentence, spoil, times=_THRICE, seconds=seconds)


def _window(name: str, sentence: str, spoil: Spoiler, seconds: float) -> Misbehaviour:
    return Misbehaviour(name, Scope.ANSWER, sentence, spoil, seconds=seconds, window=True)


def _life(name: str, sentence: str, seconds: float = 0.0) -> Misbehaviour:
    return Misbehaviour(name, Scope.LIFE, sentence, seconds=seconds)


def _file(
    name: str, sentence: str, spoil: Spoiler | None = None, seconds: float = 0.0, times: int | None = None
) -> Misbehaviour:
    return Misbehaviour(name, Scope.FILE, sentence, spoil, times, seconds)


def _on_the_wire() -> list[Misbehaviour]:
    return [
        _answer("slow", "answers rightly, but only after N seconds", _timed(wire.slow), 5.0),
        _answer("drip", "sends the body one byte every N seconds", _timed(wire.drip), 0.2),
        _answer("hang", "takes the request and never answers", _played(wire.hang)),
        _answer("reset", "resets the connection instead of answering", _played(wire.reset)),
        _answer("garbage", "answers with bytes that are not HTTP, and closes", _played(_garbage)),
        _answer("cutbody", "Content-Length promises more than is sent before the end", _played(wire.cut)),
        _answer("halfclose", "sends half of the body, then closes only its own direction", _played(wire.half_close)),
        _answer("huge", "a JSON body of 50 MB", _huge),
        _answer("bomb", "a gzip body of 0.5 MB that unpacks to 100 MB", _bomb),
    ]


def _by_status() -> list[Misbehaviour]:
    error = {"message": "user quota is not enough", "type": "new_api_error", "code": "insufficient_user_quota"}
    quota_403 = relay_error("quota_not_enough", 403, "user quota is not enough")
    quota_429 = Reply.json({"error": error}, 429)
    away = Reply(302, headers=(("Location", "/elsewhere"),))
    return [
        _answer("http500", "500 with the relay's JSON error", _instead(relay_error("get_task_failed", 500))),
        _answer("http502", "502 with a gateway's HTML page", _instead(Reply(502, _GATEWAY_PAGE, "text/html"))),
        _answer("http503", "503 with a short text", _instead(Reply(503, b"Service Unavailable", "text/plain"))),
        _answer("http504", "504 with an empty body", _instead(Reply(504))),
        _answer("http429", "429 with `Retry-After: N`", _retry_after, 2.0),
        _answer("http429bare", "429 with an empty body and no Retry-After", _instead(Reply(429))),
        _answer("quota403", "403 quota_not_enough: the account is out of quota", _instead(quota_403)),
        _answer("quota429", "429 insufficient_user_quota: out of quota, not too fast", _instead(quota_429)),
        _answer("forbidden", "403 for no named reason", _instead(relay_error("forbidden", 403, "access denied"))),
        _answer("redirect", "302 to /elsewhere; the path counts show if it was followed", _instead(away)),
        _window("unauthorized", "401 for the first N seconds", unauthorized, 10.0),
        _window("notfound400", "unknown (400, new-api's form) for the first N seconds", _instead(not_found(400)), 5.0),
        _window("notfound404", "unknown (404, one-hub's form) for the first N seconds", _instead(not_found(404)), 5.0),
        Misbehaviour("missing400", Scope.ANSWER, "unknown (400) for ever", _instead(not_found(400))),
        Misbehaviour("missing404", Scope.ANSWER, "unknown (404) for ever", _instead(not_found(404))),
    ]


def _by_content() -> list[Misbehaviour]:
    page = Reply(200, _CHALLENGE_PAGE, "text/html; charset=utf-8")
    return [
        _answer("truncated", "JSON that stops at two thirds, its Content-Length matching", _truncated),
        _answer("empty", "200 with an empty body", _instead(Reply(200))),
        _answer("wrongtype", "the right JSON, labelled text/html", lambda good, _: good.but(media_type="text/html")),
        _answer("page", "200 with a challenge page in HTML", _instead(page)),
        _answer("list", "200 with an empty JSON list where an object belongs", _instead(Reply.json([]))),
        _answer("nostate", "the right JSON with `state` null", _edited(state=None)),
        _answer("wrongid", "the answer about another generation", _edited(id="00000000-0000-4000-8000-000000000000")),
    ]


def _lives() -> list[Misbehaviour]:
    return [
        _life("failed", "fails at its end, the reason in `failure_reason`"),
        _life("failreason", "fails at its end, the reason in `fail_reason`"),
        _life("statereason", "fails at its end, the reason in `state_reason`"),
        _life("errormessage", "fails at its end, the reason in `error.message`"),
        _life("moderated", "fails right after its queue, a moderation reason in `failure_reason`"),
        _life("mute", "fails at its end without any reason"),
        _life("neverends", "stays `processing` for ever"),
        _life("backwards", "goes from processing back to pending and on again, then completes"),
        _life("unknown", "says `reticulating` instead of `processing`; with `_always` for ever"),
        _life("nourl", "says completed without any URL for N seconds, then with them", 5.0),
        _life("nodownload", "completes with an empty `download_url`; `url` is good"),
    ]


def _files() -> list[Misbehaviour]:
    page = Reply(200, _CHALLENGE_PAGE, "text/html")
    error = Reply(500, b"Internal Server Error", "text/plain")
    gone = Reply(404, b"Not Found", "text/plain")
    return [
        _file("expire", "links are signed, and answer 403 N seconds after the answer with them", seconds=30.0),
        _file("cutfile", "the transfer stops half-way with an orderly end", _played(wire.cut), times=_THRICE),
        _file("resetfile", "the transfer is reset half-way", _played(wire.cut_by_reset), times=_THRICE),
        _file("hangfile", "the download is never answered", _played(wire.hang), times=_THRICE),
        _file("slowfile", "the transfer takes N seconds", _timed(wire.spread), 20.0),
        _file("file500", "the download answers 500", _instead(error), times=_THRICE),
        _file("file404", "the file does not exist", _instead(gone)),
        _file("filepage", "200 with an HTML page instead of the file", _instead(page), times=_THRICE),
        _file("emptyfile", "200 with no bytes", lambda good, _: good.but(body=b""), times=_THRICE),
        _file("changing", "every download has other bytes and another ETag"),
        _file("norange", "ranges are ignored: always 200 and the whole file"),
        _file("nolength", "no Content-Length: chunked transfer coding"),
        _file("bigfile", "the mp4 files have 64 MB (padding that players skip)"),
        _file("redirectfile", "a link's first answer is a 302 to the file"),
    ]


MISBEHAVIOURS = {row.name: row for row in (*_on_the_wire(), *_by_status(), *_by_content(), *_lives(), *_files())}


def listing() -> str:
    """The table for people, one line each: name, scope, usual strength, sentence."""
    return "\n".join(
        f"{row.name:<13} {row.scope:<7} {_strength(row):<8} {row.sentence}" for row in MISBEHAVIOURS.values()
    )


def _strength(row: Misbehaviour) -> str:
    return (
        " ".join(filter(None, [f"{row.times}x" if row.times else "", f"{row.seconds:g}s" if row.seconds else ""]))
        or "-"
    )
