"""The published JSON Schema of every event: the golden payloads and what is really sent satisfy it, and it refuses what it should."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tracker.core.events import LONGEST_BODY, SENT
from tracker.services.forms import EndpointForm

from .conftest import Place, Receiver

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "webhooks.schema.json").read_text("utf-8"))
GOLDEN = sorted(
    path for path in (ROOT / "tests" / "core" / "golden").glob("*.json") if path.stem != "generation.registered"
)
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}
WORDS = {"$ref", "anyOf", "oneOf", "allOf", "const", "enum", "type", "pattern", "minimum", "maximum", "properties", "required", "items", "description"}  # fmt: skip


def _of_one(schema: dict[str, Any], value: Any, at: str) -> list[str]:
    found = []
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: {value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is unknown")
    if "type" in schema and (not isinstance(value, TYPES[schema["type"]]) or isinstance(value, bool)):
        found.append(f"{at}: no {schema['type']}")
    elif "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{at}: {value!r}")
    elif "minimum" in schema and not schema["minimum"] <= value <= schema.get("maximum", value):
        found.append(f"{at}: {value} is out of bounds")
    return found


def wrong(schema: dict[str, Any], value: Any, at: str = "$") -> list[str]:
    """What contradicts the schema: the part of JSON Schema that the published one uses, and an error for any word beyond."""
    assert set(schema) <= WORDS | {"$schema", "title", "$defs"}, schema.keys() - WORDS
    if "$ref" in schema:
        return wrong(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], value, at)
    found = _of_one(schema, value, at)
    found += [problem for part in schema.get("allOf", []) for problem in wrong(part, value, at)]
    for word, most in (("anyOf", 99), ("oneOf", 1)):
        if word in schema and not 1 <= sum(not wrong(part, value, at) for part in schema[word]) <= most:
            found.append(f"{at}: {word}")
    if isinstance(value, dict):
        found += [f"{at}: {name} is missing" for name in schema.get("required", []) if name not in value]
        for name in schema.get("properties", {}).keys() & value.keys():
            found += wrong(schema["properties"][name], value[name], f"{at}.{name}")
    if isinstance(value, list) and "items" in schema:
        found += [problem for n, one in enumerate(value) for problem in wrong(schema["items"], one, f"{at}[{n}]")]
    return found


def test_every_type_that_is_sent_has_a_definition() -> None:
    assert {type_.value for type_ in SENT} <= SCHEMA["$defs"].keys()
    assert {part["$ref"].rpartition("/")[2] for part in SCHEMA["oneOf"]} == {type_.value for type_ in SENT}


@pytest.mark.parametrize("path", GOLDEN, ids=[path.stem for path in GOLDEN])
def test_the_golden_payloads_satisfy_it(path: Path) -> None:
    event = json.loads(path.read_text("utf-8"))
    golden_ids = json.loads(json.dumps(event).replace("ep_1", "ep_01jgg9wpg0e008000000000001"))
    assert wrong(SCHEMA["$defs"][path.stem], golden_ids) == []
    assert wrong(SCHEMA, golden_ids) == []
    event["data"] = {
        name: value for name, value in event["data"].items() if name not in {"id", "credential", "endpoint_id"}
    }
    assert wrong(SCHEMA, event) != []


def test_what_is_sent_satisfies_it_and_stays_small_whatever_the_metadata(place: Place, receiver: Receiver) -> None:
    made = place.services.endpoints.create(place.project, EndpointForm(url=receiver.url))
    place.services.endpoints.test(place.project, made.id)
    task = place.relay.create(queue=0, duration=1)
    big = {"text": "\u732b" * 5_000}
    place.register(task, metadata=big, tags=["schema"], timeout=5)
    for _ in range(20):
        place.ahead(2)
        place.poll()
    other = place.register("bare", metadata={"order": 1})
    long = place.register("long", tags=[f"{n:02}" + "\U0001f3ac" * 98 for n in range(50)], metadata=big)
    for g in (other, long):
        place.services.generations.cancel(place.project, g.id)
    place.send()
    [cut] = [got.event["data"] for got in receiver.got if got.event["data"].get("task_id") == "long"]
    assert cut["truncated"] == ["outputs", "metadata", "artifacts", "tags"]
    assert {"ping", "generation.completed", "generation.cancelled"} <= set(receiver.types())
    for got in receiver.got:
        assert wrong(SCHEMA, got.event) == [], got.body
        assert len(got.body) <= LONGEST_BODY
