"""What all tables share: how constraints are named, and a few expressions."""

from __future__ import annotations

from sqlalchemy import DateTime, MetaData, text

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(constraint_name)s",
        "ck": "%(table_name)s_%(constraint_name)s",
        "ix": "%(table_name)s_%(column_0_name)s",
    }
)

Time = DateTime(timezone=True)
NOW = text("now()")
FINAL_STATES = "('completed', 'failed', 'cancelled')"


def words(column: str, *allowed: str) -> str:
    """A CHECK that a column holds one of these words."""
    return f"{column} IN ({', '.join(repr(word) for word in allowed)})"
