"""Naive Celery, as tutorials write it: one task per generation, requests.get, one ORM object loaded and committed.

`python naive.py` is the producer (beat's part); the worker is `celery -A naive worker -P prefork|threads|gevent`.
"""

from datetime import UTC, datetime

import requests
from celery import Celery
from common import DATABASE_URL, HEADERS, REDIS_URL, UPSTREAM, orders
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

app = Celery("naive", broker=REDIS_URL)
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
engine = create_engine(DATABASE_URL.replace("postgresql://", "postgresql+psycopg://"), pool_size=20, max_overflow=80)


class Base(DeclarativeBase):
    pass


class Generation(Base):
    __tablename__ = "generations"
    number: Mapped[int]
    task_id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    polled_at: Mapped[datetime | None]


@app.task
def poll(task_id: str) -> None:
    with Session(engine) as session:
        generation = session.get(Generation, task_id)
        answer = requests.get(f"{UPSTREAM}/luma/generations/{task_id}", headers=HEADERS, timeout=10)
        generation.status = answer.json()["state"]
        generation.polled_at = datetime.now(UTC)
        session.commit()


def main() -> None:
    for first, count in orders():
        with Session(engine) as session:
            wanted = select(Generation.task_id).where(Generation.number >= first, Generation.number < first + count)
            for task_id in session.scalars(wanted):
                poll.delay(task_id)


if __name__ == "__main__":
    main()
