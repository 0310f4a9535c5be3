"""Every error this product raises on purpose. The class says what went wrong; its constructor builds the sentence that a person reads.

HTTP statuses are mapped in one place, `tracker/api/problems.py`; nothing here knows of HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass


class TrackerError(Exception):
    """The root of all errors raised on purpose."""

    code = "error"


class ConfigurationError(TrackerError):
    """A setting is missing or wrong. The message is one line that names the variable and the mend."""

    code = "configuration"

    def __init__(self, variable: str, wrong: str, mend: str) -> None:
        super().__init__(f"{variable}: {wrong}; {mend}")
        self.variable = variable


class SchemaOutdatedError(TrackerError):
    """The database is not at the revision that this program needs."""

    code = "schema_outdated"

    def __init__(self, found: str | None, needed: str, *, newer: bool = False) -> None:
        mend = "a newer version made it: install that one" if newer else "run `tracker migrate`"
        super().__init__(f"the database schema is at {found or 'nothing'} but {needed} is needed; {mend}")


class NotRunningError(TrackerError):
    """The embedded servers of this home are not running, and no server is configured."""

    code = "not_running"

    def __init__(self, home: object) -> None:
        super().__init__(
            f"nothing runs at {home}; start it with `tracker up`, or set TRACKER_DATABASE_URL and TRACKER_REDIS_URL"
        )


@dataclass(frozen=True)
class FieldProblem:
    """One thing that is wrong with one field of what a caller sent."""

    field: str
    message: str
    code: str = "invalid"


class InvalidError(TrackerError):
    """What a caller sent cannot be accepted. Carries every problem found, not only the first."""

    code = "invalid"

    def __init__(self, *problems: FieldProblem) -> None:
        super().__init__("; ".join(f"{p.field}: {p.message}" for p in problems))
        self.problems = problems


class NotFoundError(TrackerError):
    """There is no such object, or it belongs to another project (which must look the same)."""

    code = "not_found"

    def __init__(self, noun: str, name: object) -> None:
        super().__init__(f"no {noun} {str(name)[:120]!r}")
        self.noun = noun


class ConflictError(TrackerError):
    """The request contradicts what is stored."""

    code = "conflict"

    def __init__(
        self,
        message: str,
        *problems: FieldProblem,
        id: str | None = None,  # noqa: A002 - the field's name outside
        code: str | None = None,
        count: int | None = None,
    ) -> None:
        super().__init__(message)
        self.problems, self.id, self.count = problems, id, count
        self.code = code or type(self).code


class UnauthorizedError(TrackerError):
    """No API key, or one that is unknown, revoked or expired."""

    code = "unauthorized"


class ForbiddenError(TrackerError):
    """The API key is known but lacks the scope."""

    code = "forbidden"

    def __init__(self, scope: str) -> None:
        super().__init__(f"this key lacks the scope `{scope}`")


class PayloadTooLargeError(TrackerError):
    """The body or batch is over its bound."""

    code = "too_large"


class AddressRefusedError(TrackerError):
    """The address may not be reached (private, reserved, or a port that is not allowed)."""

    code = "address_refused"
