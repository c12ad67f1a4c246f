"""The environment of the functions, read once, with all its faults reported together."""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Annotated, Any, Self, get_args, get_origin
from urllib.parse import urlsplit

from workflow_trigger.domain.document import Lane, Route, Selection, canonical_id, queue_of, route_of
from workflow_trigger.domain.errors import SettingsError
from workflow_trigger.domain.model import Document

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_OTHER_PRODUCTS = {"api.unstructuredapp.io", "api.unstructured.io"}
_INTERFACE = "platform.unstructured.io"
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:-]*")
_UUID = re.compile(r"[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}|[0-9A-Fa-f]{32}")
# The vendor's pattern, less what has the digits and about the length of a UUID: that is a mistyped one.
_WORKFLOW_KEY = re.compile(r"(?![0-9a-f-]{30,40}$)(?=.{1,63}$)[a-z0-9](-?[a-z0-9])*")


def routes_in(text: str) -> tuple[Route, ...]:
    """`PREFIX: ID, ID; PREFIX: ID: RESULTS/` → routes. A key prefix, its workflows, and where its results go.

    Raises:
        ValueError: an entry is none.
    """
    found = []
    for entry in filter(None, map(str.strip, text.split(";"))):
        prefix, *more = map(str.strip, entry.split(":"))
        if not prefix or not 1 <= len(more) <= 2:
            raise ValueError(f"{entry!r} is not PREFIX: WORKFLOW, WORKFLOW or PREFIX: WORKFLOW: RESULTS/")
        if len(more) == 2 and not more[1].endswith("/"):
            raise ValueError(f"{more[1]!r} must end in a slash")
        found.append(Route(prefix, _workflow_ids(more[0]), *more[1:]))
    return tuple(found)


def api_root(url: str) -> str:
    """The platform's root, from any of the three forms in which the address is passed around.

    A path before `/api/v1`, as a gateway may have, is kept.

    Raises:
        ValueError: not an https address (http is for this machine only, since every request carries the key), or the
            address of something else.
    """
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").removesuffix(".")
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(host) or parts.port == 0:  # the port may raise
        raise ValueError("must be an address like https://platform.unstructuredapp.io")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ValueError("must begin with https://, because every request carries the API key")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must hold neither credentials nor a query")
    path = parts.path.rstrip("/")
    if host in _OTHER_PRODUCTS or re.search(r"/general/v\d|/partition|/transform", path):
        raise ValueError("is the address of the Partition or Transform API; the Workflow API has https://platform.…")
    if host == _INTERFACE:
        raise ValueError("is the address of the web interface; the API has https://platform.unstructuredapp.io")
    found = re.fullmatch(r"(.*)/api/v1(/workflows/[^/]+/run)?", path)
    if path and not found:
        raise ValueError("must be the host alone, or end in /api/v1, or be a whole run address")
    return f"{parts.scheme}://{parts.netloc}{found[1] if found else ''}"


def _workflow_ids(text: str) -> tuple[str, ...]:
    ids = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in ids if not (_UUID.fullmatch(part) or _WORKFLOW_KEY.fullmatch(part))]
    if not ids or wrong:
        named = f"; these are neither UUIDs nor keys (a-z, 0-9, single hyphens): {', '.join(wrong)}" if wrong else ""
        raise ValueError(f"must be one or more workflow ids, separated by commas{named}")
    # As they are spelled, for that is the key of their items; each once, or it would get two attempts at a time.
    spelled: dict[str, str] = {}
    for part in ids:
        spelled.setdefault(canonical_id(part), part)
    return tuple(spelled.values())


def number_between(least: int, most: int) -> Callable[[str], float]:
    """A number, which may have a fraction: CloudFormation lets it pass."""

    def parse(text: str) -> float:
        with suppress(ValueError):
            if least <= (value := float(text)) <= most:
                return int(value) if value.is_integer() else value
        raise ValueError(f"must be a number from {least:,} to {most:,}")

    return parse


def _files(text: str) -> int:
    """At most 2.5 files are two."""
    return int(number_between(1, 25)(text))


def megabytes(least: int) -> Callable[[str], int]:
    """A number of megabytes (of 1,000,000 bytes), in bytes."""
    return lambda text: round(number_between(least, 100_000)(text) * 1_000_000)


def _is_on(text: str) -> bool:
    if text not in {"on", "off"}:
        raise ValueError("must be on or off")
    return text == "on"


def patterns(text: str) -> tuple[str, ...]:
    """A list of globs, as a parameter holds it."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclass(frozen=True, slots=True)
class Variable:
    """Where a setting comes from. Without a text it has its default, or is a fault if it has none."""

    name: str
    parse: Callable[[str], Any] = str
    may_be_empty: bool = False  # and then it is, instead of having its default


_SELECTION = {
    "include": Variable("INCLUDE_PATTERNS", patterns),
    "exclude": Variable("EXCLUDE_PATTERNS", patterns),
    "min_bytes": Variable("MIN_BYTES", number_between(0, 10**12)),
    "max_bytes": Variable("MAX_MEGABYTES_PER_FILE", lambda text: megabytes(0)(text) or None),
    "only_supported": Variable("ONLY_SUPPORTED_TYPES", _is_on),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the template passes in. `api_url` is the root of the platform, without `/api/v1`."""

    api_url: Annotated[str, Variable("UNSTRUCTURED_API_URL", api_root)]
    workflow_ids: Annotated[tuple[str, ...], Variable("WORKFLOW_IDS", _workflow_ids)]
    api_key_secret_arn: Annotated[str, Variable("API_KEY_SECRET_ARN")]
    ledger_table: Annotated[str, Variable("LEDGER_TABLE")]
    workflows_table: Annotated[str, Variable("WORKFLOWS_TABLE")]
    max_files_per_run: Annotated[int, Variable("MAX_FILES_PER_RUN", _files)] = 10
    max_bytes_per_run: Annotated[int, Variable("MAX_MEGABYTES_PER_RUN", megabytes(1))] = 100_000_000
    poll_seconds: Annotated[float, Variable("POLL_SECONDS", number_between(1, 50))] = 10
    retention_days: Annotated[float, Variable("LEDGER_RETENTION_DAYS", number_between(0, 36_500))] = 365
    stack_name: Annotated[str, Variable("POWERTOOLS_SERVICE_NAME")] = ""
    event_bus_name: Annotated[str, Variable("EVENT_BUS_NAME")] = "default"
    results_bucket: Annotated[str | None, Variable("RESULTS_BUCKET")] = None
    results_prefix: Annotated[str, Variable("RESULTS_PREFIX", may_be_empty=True)] = "results/"
    results_kms_key_arn: Annotated[str | None, Variable("RESULTS_KMS_KEY_ARN")] = None
    source_bucket: Annotated[str, Variable("SOURCE_BUCKET")] = ""
    key_prefix: Annotated[str, Variable("KEY_PREFIX")] = ""
    key_suffix: Annotated[str, Variable("KEY_SUFFIX")] = ""
    registers_missed: Annotated[bool, Variable("COMPARE_MODE", lambda text: text == "register")] = False
    on_schedule_function: Annotated[str, Variable("ON_SCHEDULE_FUNCTION")] = ""
    selection: Selection = field(default_factory=Selection)  # of several variables
    records_skipped: Annotated[bool, Variable("SKIPPED_ROWS", _is_on)] = True
    reads_tags: Annotated[bool, Variable("READ_TAGS", _is_on)] = False
    only_latest_version: Annotated[bool, Variable("ONLY_LATEST_VERSION", _is_on)] = False
    ca_bundle_secret_arn: Annotated[str, Variable("CA_BUNDLE_SECRET_ARN")] = ""
    routes: Annotated[tuple[Route, ...], Variable("ROUTES", routes_in)] = ()
    route: str = ""  # the key prefix of the route whose settings these are; '': of all that no other takes

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read and check all variables.

        Raises:
            SettingsError: names every variable that is missing or wrong, and what it should be.
        """
        own = {each.name: get_args(each.type)[1] for each in fields(cls) if get_origin(each.type) is Annotated}
        needed = [each.name for each in fields(cls) if each.default is MISSING and each.name in own]
        values: dict[str, Any] = dict.fromkeys(needed)
        faults: list[str] = []
        for name, variable in (own | _SELECTION).items():
            text = environment.get(variable.name, "").strip()
            if not text and name in needed:
                faults.append(f"{variable.name} is not set")
            elif text or (variable.may_be_empty and variable.name in environment):
                try:
                    values[name] = variable.parse(text)
                except ValueError as error:
                    faults.append(f"{variable.name}={text!r}: {error}")
        selection = Selection(**{name: values.pop(name) for name in _SELECTION if name in values})
        given = cls(**values, selection=selection)
        faults += given._contradictions()
        if faults:
            raise SettingsError("The function's environment is faulty: " + "; ".join(faults))
        return given

    def _contradictions(self) -> list[str]:
        """What is wrong with settings next to each other. A needed one that is wrong itself is None."""
        faults = [
            f"ROUTES: {each.key_prefix!r} is not under KEY_PREFIX"
            for each in self.routes
            if not each.key_prefix.startswith(self.key_prefix)
        ]
        prefixes = Counter(each.key_prefix for each in self.routes)
        faults += [f"ROUTES: {prefix!r} is there twice" for prefix, number in prefixes.items() if number > 1]
        pools = (self.workflow_ids or (), *(each.workflow_ids for each in self.routes))
        owners = Counter(canonical_id(each) for pool in pools for each in pool)
        faults += [f"workflow {each} is in more than one route" for each, number in owners.items() if number > 1]
        if self.source_bucket == self.results_bucket and self.key_prefix.startswith(self.results_prefix):
            what = f"RESULTS_PREFIX={self.results_prefix!r} holds all that KEY_PREFIX={self.key_prefix!r} selects"
            faults.append(f"{what} of the bucket: documents could not be told from results")
        return faults

    def is_live(self, queue: str | None) -> bool:
        """Whether a route reads a queue."""
        names = ("", *(each.key_prefix for each in self.routes))
        return queue in {queue_of(lane, name) for lane in Lane for name in names}

    def route_of(self, document: Document) -> str:
        """The route in whose queue a document waits; of one that is in no queue, that of its key."""
        return document.route or "" if self.is_live(document.queue) else route_of(document.source.key, self.routes)

    def of_route(self, route: Route) -> Self:
        """What is different for the documents of a route."""
        results_prefix = self.results_prefix + route.results_prefix
        return replace(self, workflow_ids=route.workflow_ids, results_prefix=results_prefix, route=route.key_prefix)
