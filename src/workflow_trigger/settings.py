"""The environment of the functions, read once, with all its faults reported together."""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import urlsplit

from workflow_trigger.domain.document import Lane, Route, Selection, canonical_id, queue_of
from workflow_trigger.domain.errors import SettingsError

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_OTHER_PRODUCTS = {"api.unstructuredapp.io", "api.unstructured.io"}
_INTERFACE = "platform.unstructured.io"
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:-]*")
_UUID = re.compile(r"[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}|[0-9A-Fa-f]{32}")
# The vendor's pattern, less what has the digits and about the length of a UUID: that is a mistyped one.
_WORKFLOW_KEY = re.compile(r"(?![0-9a-f-]{30,40}$)(?=.{1,63}$)[a-z0-9](-?[a-z0-9])*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the template passes in. `api_url` is the root of the platform, without `/api/v1`."""

    api_url: str
    workflow_ids: tuple[str, ...]
    api_key_secret_arn: str
    ledger_table: str
    workflows_table: str
    max_files_per_run: int = 10
    max_bytes_per_run: int = 100_000_000
    poll_seconds: float = 10
    retention_days: float = 365
    stack_name: str = ""
    event_bus_name: str = "default"
    results_bucket: str | None = None
    results_prefix: str = "results/"
    results_kms_key_arn: str | None = None
    source_bucket: str = ""
    key_prefix: str = ""
    key_suffix: str = ""
    registers_missed: bool = False
    on_schedule_function: str = ""
    selection: Selection = field(default_factory=Selection)
    records_skipped: bool = True
    reads_tags: bool = False
    only_latest_version: bool = False
    ca_bundle_secret_arn: str = ""
    routes: tuple[Route, ...] = ()
    route: str = ""  # the key prefix of the route whose settings these are; '': of all that no other takes

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read and check all variables.

        Raises:
            SettingsError: names every variable that is missing or wrong, and what it should be.
        """
        variables = _Variables(environment)
        values = {
            "api_url": variables.read("UNSTRUCTURED_API_URL", api_root),
            "workflow_ids": variables.read("WORKFLOW_IDS", _workflow_ids),
            "api_key_secret_arn": variables.read("API_KEY_SECRET_ARN", str),
            "ledger_table": variables.read("LEDGER_TABLE", str),
            "workflows_table": variables.read("WORKFLOWS_TABLE", str),
            "max_files_per_run": variables.read("MAX_FILES_PER_RUN", _files, "10"),
            "max_bytes_per_run": variables.read("MAX_MEGABYTES_PER_RUN", megabytes(1), "100"),
            "poll_seconds": variables.read("POLL_SECONDS", number_between(1, 50), "10"),
            "retention_days": variables.read("LEDGER_RETENTION_DAYS", number_between(0, 36_500), "365"),
            "results_bucket": environment.get("RESULTS_BUCKET") or None,
            "results_prefix": (results_prefix := environment.get("RESULTS_PREFIX", "results/")),
            "results_kms_key_arn": environment.get("RESULTS_KMS_KEY_ARN") or None,
            "source_bucket": (source_bucket := environment.get("SOURCE_BUCKET", "")),
            "key_prefix": (key_prefix := environment.get("KEY_PREFIX", "")),
            "key_suffix": environment.get("KEY_SUFFIX", ""),
            "registers_missed": environment.get("COMPARE_MODE", "count") == "register",
            "selection": variables.selection(),
            "records_skipped": environment.get("SKIPPED_ROWS", "on") == "on",
            "reads_tags": environment.get("READ_TAGS", "off") == "on",
            "only_latest_version": environment.get("ONLY_LATEST_VERSION", "off") == "on",
            "routes": variables.read("ROUTES", routes, "") or (),
            "ca_bundle_secret_arn": environment.get("CA_BUNDLE_SECRET_ARN", ""),
            "event_bus_name": environment.get("EVENT_BUS_NAME") or "default",
            "stack_name": environment.get("POWERTOOLS_SERVICE_NAME", ""),
            "on_schedule_function": environment.get("ON_SCHEDULE_FUNCTION", ""),
        }
        variables.faults += _faults_of(values["routes"] or (), values["workflow_ids"] or (), key_prefix)  # type: ignore[arg-type]
        if source_bucket and source_bucket == values["results_bucket"] and key_prefix.startswith(results_prefix):
            what = f"RESULTS_PREFIX={results_prefix!r} holds all that KEY_PREFIX={key_prefix!r} selects of the bucket"
            variables.faults.append(f"{what}: documents could not be told from results")
        if variables.faults:
            raise SettingsError("The function's environment is faulty: " + "; ".join(variables.faults))
        return cls(**values)  # type: ignore[arg-type]

    def is_live(self, queue: str | None) -> bool:
        """Whether a route reads a queue."""
        names = ("", *(each.key_prefix for each in self.routes))
        return queue in {queue_of(lane, name) for lane in Lane for name in names}

    def of_route(self, route: Route) -> Self:
        """What is different for the documents of a route."""
        results_prefix = self.results_prefix + route.results_prefix
        return replace(self, workflow_ids=route.workflow_ids, results_prefix=results_prefix, route=route.key_prefix)


class _Variables:
    """Reads variables, and keeps what is wrong with them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.faults: list[str] = []

    def read[T](self, name: str, parse: Callable[[str], T], default: str | None = None) -> T | None:
        """A variable, or its default; None where it is missing or wrong."""
        text = self._environment.get(name, "").strip() or default
        if text is None:
            self.faults.append(f"{name} is not set")
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.faults.append(f"{name}={text!r}: {error}")
            return None

    def selection(self) -> Selection:
        """Which objects are documents."""
        return Selection(
            include=patterns(self._environment.get("INCLUDE_PATTERNS", "")),
            exclude=patterns(self._environment.get("EXCLUDE_PATTERNS", "")),
            min_bytes=self.read("MIN_BYTES", number_between(0, 10**12), "1") or 0,
            max_bytes=self.read("MAX_MEGABYTES_PER_FILE", megabytes(0), "0") or None,
            only_supported=self._environment.get("ONLY_SUPPORTED_TYPES", "off") == "on",
        )


def routes(text: str) -> tuple[Route, ...]:
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


def _faults_of(found: Sequence[Route], others: Sequence[str], key_prefix: str) -> list[str]:
    """What is wrong with routes, next to each other and to the other settings."""
    faults = [
        f"ROUTES: {each.key_prefix!r} is not under KEY_PREFIX"
        for each in found
        if not each.key_prefix.startswith(key_prefix)
    ]
    prefixes = Counter(each.key_prefix for each in found)
    faults += [f"ROUTES: {prefix!r} is there twice" for prefix, number in prefixes.items() if number > 1]
    pools = Counter(canonical_id(each) for pool in (others, *(route.workflow_ids for route in found)) for each in pool)
    return faults + [f"workflow {each} is in more than one route" for each, number in pools.items() if number > 1]


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


def patterns(text: str) -> tuple[str, ...]:
    """A list of globs, as a parameter holds it."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
