"""Registration in batches of 1,000: ids per second, with and without a webhook, and how long one single registration takes.

Runs on an embedded PostgreSQL of its own with durable settings; `python bench/bench_registration.py [rounds]`.
"""

from __future__ import annotations

import statistics
import sys
import time

from common import installation, note, table

from tracker.services.forms import CredentialForm, RegistrationForm, validated

BATCH = 1000


def main(rounds: int = 10) -> None:
    with installation() as services:
        project_id = services.keys.project().project_id
        form = CredentialForm(providers=["luma"], base_url="http://127.0.0.1:9", api_key="key")
        services.credentials.put(project_id, "default", form)
        results = {
            "plain": _batches(services, project_id, rounds, {}),
            "with webhook, tags and metadata": _batches(
                services,
                project_id,
                rounds,
                {
                    "webhook_url": "http://127.0.0.1:9/hook",
                    "tags": ["a", "b"],
                    "metadata": {"user": 7, "note": "x" * 200},
                },
            ),
            "again (all known)": _batches(services, project_id, rounds, {}, same=True),
        }
        single = _singles(services, project_id, 200)
    table(
        ("batches of 1,000", "ids/s median", "slowest"),
        [(name, f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f}") for name, rates in results.items()],
    )
    print(
        f"one registration: p50 {single[len(single) // 2] * 1000:.1f} ms, p99 {single[-len(single) // 100] * 1000:.1f} ms"
    )
    note(
        "registration",
        {
            "ids_per_second": {name: statistics.median(rates) for name, rates in results.items()},
            "single_ms": {"p50": single[len(single) // 2] * 1000, "p99": single[-len(single) // 100] * 1000},
        },
    )


def _batches(services, project_id, rounds, fields, *, same=False) -> list[float]:
    rates = []
    for number in range(rounds):
        prefix = "same" if same else f"{len(fields)}-{number}"
        raw = [{"provider": "luma", "task_id": f"{prefix}-{i}", **fields} for i in range(BATCH)]
        began = time.perf_counter()
        outcomes = services.registration.register_many(project_id, [validated(RegistrationForm, item) for item in raw])
        rates.append(BATCH / (time.perf_counter() - began))
        assert len(outcomes) == BATCH
    return rates[1:] if same else rates


def _singles(services, project_id, count) -> list[float]:
    took = []
    for number in range(count):
        began = time.perf_counter()
        services.registration.register(project_id, RegistrationForm(provider="luma", task_id=f"single-{number}"))
        took.append(time.perf_counter() - began)
    return sorted(took)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
