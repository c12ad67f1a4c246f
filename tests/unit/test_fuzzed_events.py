"""Any JSON, and mutations of every shipped event: a bad record is reported, and never harms another."""

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import EVENT_FILES, load_event
from workflow_trigger.adapters.s3_events import ParsedEvent

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
SHIPPED = [load_event(path.stem) for path in EVENT_FILES]


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [prefix, *(path for name, inner in entries for path in paths(inner, (*prefix, name)))]


@st.composite
def mutations(draw: st.DrawFn) -> Any:
    event = {"root": copy.deepcopy(draw(st.sampled_from(SHIPPED)))}
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths(event)[1:]))
        holder: Any = event
        for name in path[:-1]:
            holder = holder[name]
        if draw(st.booleans()):
            holder[path[-1]] = draw(JSON)
        elif len(path) > 1:
            del holder[path[-1]]
    return event["root"]


@given(JSON | mutations())
@settings(max_examples=400, deadline=None)
def test_any_event_is_read_without_an_exception(event: Any) -> None:
    parsed = ParsedEvent.of(event)
    for version in parsed.versions:
        assert version.bucket
        assert version.key
        assert version.document_key.version


@given(st.text() | JSON.map(json.dumps) | mutations().map(json.dumps))
@settings(max_examples=200, deadline=None)
def test_any_message_body_is_read_without_an_exception(body: str) -> None:
    parsed = ParsedEvent.of(body)
    assert isinstance(parsed.unreadable, list)


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_a_bad_record_never_costs_its_neighbours(bad: Any) -> None:
    event = load_event("s3-several-records")
    event["Records"].insert(1, bad)
    parsed = ParsedEvent.of(event)
    assert [version.key for version in parsed.versions] == ["several/one.pdf", "several/two.pdf", "several/three.pdf"]
    assert len(parsed.unreadable) + len(parsed.skipped) == 1
