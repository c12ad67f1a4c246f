"""`forget`: take the content of an object out of the ledger and the results, for a right to erasure.

The results go first: whatever interrupts the command, the row still says what is left to be done.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import batched
from typing import Any

from workflow_trigger.adapters.dynamodb.mapping import Item
from workflow_trigger.adapters.s3_results import result_folders
from workflow_trigger.domain.document import DocumentKey
from workflow_trigger.domain.model import FINAL, Status
from workflow_trigger_cli.advice import typed
from workflow_trigger_cli.commands.find import rows_of
from workflow_trigger_cli.errors import CommandError
from workflow_trigger_cli.stack import Stack, split_url

_AT_ONCE = 1_000  # of a DeleteObjects


@dataclass(frozen=True, kw_only=True, slots=True)
class Forgotten:
    """What was, or would be, taken away. `changed`: rows that have changed since; the command can be repeated."""

    rows: int
    results: int
    objects: int
    changed: int = 0


class Forget:
    """One object, or one version of it."""

    def __init__(self, stack: Stack, url: str, version: str | None, *, with_object: bool) -> None:
        """See whether it can be forgotten.

        Raises:
            CommandError: the ledger does not know it, or it is on its way.
        """
        self._stack, self._url, self._version = stack, url, version
        self._with_object = with_object
        self._s3 = stack.client("s3")
        self._objects = list(self._object_versions())  # those that are asked about: one that comes later stays
        self._unversioned = self._unversioned_uploads()
        self._rows = [row for row in rows_of(stack, url) if version in {None, row["version"]}]
        self._outputs = {row["version"]: list(self._results(row)) for row in self._rows}  # one that comes later stays
        if not self._rows:
            raise CommandError(f"The ledger does not know {url}{f' version {version}' if version else ''}.")
        for row in self._rows:
            if row["status"] not in FINAL:
                running = "" if row["status"] == Status.PENDING else " --running"
                chosen = f"--object {typed(url)} --version {typed(row['version'])}{running}"
                raise CommandError(
                    f"Version {row['version']} is {row['status']}: only what is final can be forgotten. "
                    f"Wait, or: workflow-trigger cancel --stack {stack.name} {chosen}"
                )

    def plan(self) -> Forgotten:
        """What would be taken away."""
        results = sum(map(len, self._outputs.values()))
        return Forgotten(rows=len(self._rows), results=results, objects=len(self._objects))

    def run(self) -> Forgotten:
        """Take it away: results, then the object's versions if they are to go, then what the rows hold.

        Raises:
            CommandError: it was uploaded again.
        """
        self._see_that_nothing_came()
        now = {row["version"]: row["updated_at"] for row in rows_of(self._stack, self._url)}
        as_read = [row for row in self._rows if now.get(row["version"]) == row["updated_at"]]
        bucket = self._stack.outputs.get("ResultsBucket", "")  # without one there are no results
        results = sum(self._delete(bucket, self._outputs[row["version"]]) for row in as_read)
        self._see_that_nothing_came()
        objects = self._delete(split_url(self._url)[0], self._objects) if as_read == self._rows else 0
        ledger = self._stack.ledger()
        done = sum(ledger.forget(row) for row in as_read)
        return Forgotten(rows=done, results=results, objects=objects, changed=len(self._rows) - done)

    def _see_that_nothing_came(self) -> None:
        """In a bucket without versions, an upload that came while the command asked has the name of what was counted.

        Raises:
            CommandError: one has come.
        """
        if self._unversioned_uploads() - self._unversioned:
            raise CommandError(f"{self._url} was uploaded again while the command asked. The object was not deleted.")

    def _unversioned_uploads(self) -> set[tuple[str, Any]]:
        """What the bucket has under the key without a version of its own: its etag and time."""
        bucket, key = split_url(self._url)
        found = self._versions_under(bucket, key) if self._with_object else iter(())
        return {
            (each["ETag"], each["LastModified"])
            for each in found
            if each["Key"] == key and each["VersionId"] == "null" and "ETag" in each
        }

    def _results(self, row: Item) -> Iterator[dict[str, Any]]:
        """Every output of every run of a row, in all its versions."""
        bucket, prefix = self._stack.outputs.get("ResultsBucket"), self._stack.parameters.get("ResultsPrefix", "")
        if bucket is None:
            return
        key = DocumentKey(row["object"], row["version"])
        for below in {"", *(route.results_prefix for route in self._stack.routes)}:
            for folder in result_folders(key):
                for each in self._versions_under(bucket, f"{prefix}{below}{folder}/"):
                    # `<job>/<file>` and no deeper: another object's key may begin with this folder.
                    if each["Key"].removeprefix(f"{prefix}{below}{folder}/").count("/") == 1:
                        yield each

    def _object_versions(self) -> Iterator[dict[str, Any]]:
        """The versions of the object itself, delete markers among them; without --version all of them."""
        if not self._with_object:
            return
        bucket, key = split_url(self._url)
        for each in self._versions_under(bucket, key):
            names = {each["VersionId"], each.get("ETag", "").strip('"')}
            if each["Key"] == key and (self._version is None or self._version in names):
                yield each

    def _versions_under(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            yield from page.get("Versions", [])
            yield from page.get("DeleteMarkers", [])

    def _delete(self, bucket: str, versions: Iterable[dict[str, Any]]) -> int:
        done = 0
        for few in batched(versions, _AT_ONCE, strict=False):
            entries = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in few]
            answer = self._s3.delete_objects(Bucket=bucket, Delete={"Objects": entries, "Quiet": True})
            if answer.get("Errors"):
                first = answer["Errors"][0]
                raise CommandError(f"{bucket} keeps {first['Key']}: {first.get('Message') or first.get('Code')}")
            done += len(entries)
        return done
