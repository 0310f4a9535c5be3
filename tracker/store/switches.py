"""The operator's switches: `polls`, `webhooks` and `downloads` can be stopped for the whole installation."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text

from tracker.store.db import Transaction


def stopped(tx: Transaction) -> dict[str, str]:
    """What is stopped, with the reason."""
    return {row.name: row.reason for row in tx.execute(text("SELECT name, reason FROM switches"))}


def stop(tx: Transaction, name: str, reason: str, now: datetime) -> None:
    """Stop one kind of work."""
    tx.execute(
        text(
            "INSERT INTO switches (name, reason, at) VALUES (:name, :reason, :now)"
            " ON CONFLICT (name) DO UPDATE SET reason = excluded.reason"
        ),
        {"name": name, "reason": reason, "now": now},
    )


def resume(tx: Transaction, name: str) -> bool:
    """Let it go on; False when it was not stopped."""
    return tx.execute(text("DELETE FROM switches WHERE name = :name"), {"name": name}).rowcount > 0
