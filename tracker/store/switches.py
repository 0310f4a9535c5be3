"""The operator's switches: `polls`, `webhooks` and `downloads` can be stopped for the whole installation."""

from __future__ import annotations

from datetime import datetime

from tracker.store.db import Transaction, ahead, text


def stopped(tx: Transaction) -> dict[str, str]:
    """What is stopped, with the reason."""
    return {row.name: row.reason for row in tx.execute(text("SELECT name, reason FROM switches"))}


def is_stopped(tx: Transaction, name: str) -> tuple[bool, datetime]:
    """Whether this kind of work is stopped, and the time."""
    found = text("SELECT EXISTS (SELECT FROM switches WHERE name = :name) AS stopped, clock_timestamp() AS now")
    row = tx.execute(found, {"name": name}).one()
    return row.stopped, row.now + ahead(tx)


def stop(tx: Transaction, name: str, reason: str, now: datetime) -> None:
    """Stop one kind of work, until an operator lets it go on."""
    tx.execute(
        text(
            "INSERT INTO switches (name, reason, at) VALUES (:name, :reason, :now)"
            " ON CONFLICT (name) DO UPDATE SET reason = excluded.reason, needed = NULL"
        ),
        {"name": name, "reason": reason, "now": now},
    )


def stop_until_free(tx: Transaction, name: str, reason: str, needed: int, now: datetime) -> bool:
    """Stop one kind of work until `needed` bytes of disk are free; False when it was stopped already."""
    made = tx.execute(
        text(
            "INSERT INTO switches (name, reason, at, needed) VALUES (:name, :reason, :now, :needed) ON CONFLICT (name) DO NOTHING"
        ),
        {"name": name, "reason": reason, "now": now, "needed": needed},
    )
    return made.rowcount > 0


def needed(tx: Transaction, name: str) -> int | None:
    """The bytes of disk that this work waits for; None when it is not stopped, or waits for an operator."""
    found: int | None = tx.execute(
        text("SELECT needed FROM switches WHERE name = :name"), {"name": name}
    ).scalar_one_or_none()
    return found


def resume(tx: Transaction, name: str) -> bool:
    """Let it go on; False when it was not stopped."""
    return tx.execute(text("DELETE FROM switches WHERE name = :name"), {"name": name}).rowcount > 0
