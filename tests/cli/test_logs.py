"""What is logged: one JSON object a line, with what it is about and without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from tracker import logs
from tracker.settings import Account, Settings

SETTINGS = Settings(
    database_url=SecretStr("postgresql://tracker:pass-word-1234@db/tracker"),
    secret_keys=SecretStr("first-fernet-key,second-fernet-key"),
    accounts={"luma": Account(api_key=SecretStr("sk-provider-key"))},
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    logs.configure(SETTINGS, "worker-poll", stream=out)
    yield out
    logging.captureWarnings(capture=False)
    root.handlers, root.level = handlers, level


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_an_object_with_what_it_is_about(stream: io.StringIO) -> None:
    logging.getLogger("tracker.polling").info("asked %d", 3, extra={"generation": "gen_1", "took": 0.2})
    logging.getLogger("tracker.polling").debug("too quiet")
    [line] = lines(stream)
    assert (line["message"], line["level"], line["process"], line["logger"]) == (
        "asked 3",
        "info",
        "worker-poll",
        "tracker.polling",
    )
    assert (line["generation"], line["took"]) == ("gen_1", 0.2)
    assert line["at"].endswith("Z")


@pytest.mark.parametrize(
    "secret",
    [
        "postgresql://tracker:pass-word-1234@db/tracker", "pass-word-1234", "second-fernet-key", "sk-provider-key",
        "trk_0123456789abcdef0123456789abcdef01234567", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    ],
)  # fmt: skip
def test_a_secret_is_masked_wherever_it_slipped_in(stream: io.StringIO, secret: str) -> None:
    try:
        raise ValueError(f"refused {secret}")  # noqa: TRY301 - it must be raised to have a traceback
    except ValueError:
        logging.getLogger("x").exception("with %s", secret, extra={"header": f"Bearer {secret}"})
    said = stream.getvalue()
    assert secret not in said
    assert (
        lines(stream)[0]["message"]
        == f"with {'trk_' if secret.startswith('trk') else 'whsec_' if secret.startswith('wh') else ''}***"
    )


def test_passwords_in_addresses_and_bearers_that_nobody_knows_are_masked(stream: io.StringIO) -> None:
    logging.getLogger("x").error("amqp://user:unknown@host/ answered 401 to Bearer abcdef")
    assert lines(stream)[0]["message"] == "amqp://user:***@host/ answered 401 to Bearer ***"


def test_on_a_terminal_a_line_is_for_a_person(stream: io.StringIO) -> None:
    terminal = Terminal()
    logs.configure(SETTINGS, "api", stream=terminal)
    logging.getLogger("x").info("completed", extra={"generation": "gen_1"})
    clock, rest = terminal.getvalue().split(" ", 1)
    assert clock.count(":") == 2
    assert rest == "INFO    completed  generation=gen_1\n"
    assert stream.getvalue() == ""


def test_chatty_libraries_speak_only_when_it_matters(stream: io.StringIO) -> None:
    logging.getLogger("sqlalchemy.engine").info("SELECT 1")
    logging.getLogger("kombu").warning("connection lost")
    assert [line["message"] for line in lines(stream)] == ["connection lost"]
