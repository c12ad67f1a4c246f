"""What is in a bucket, as object versions: a page at a time, however many there are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import ObjectVersion

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketListing:
    """The objects of a bucket under a prefix."""

    client: "S3Client"
    bucket: str
    prefix: str

    def versions(self, *, old_ones: bool = False) -> Iterator[ObjectVersion]:
        """The newest version of each key; with `old_ones` every version that an event can have named."""
        versioning = self.client.get_bucket_versioning(Bucket=self.bucket).get("Status")
        if versioning is None:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            yield from (self._version(entry) for page in pages for entry in page.get("Contents", []))
            return
        listed = self.client.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=self.prefix)
        for page in listed:
            for entry in page.get("Versions", []):
                # Of those that were put while the bucket had no versions, an event names only the newest.
                if entry["IsLatest"] or (old_ones and entry["VersionId"] != "null"):
                    yield self._version(entry)

    def _version(self, entry: Mapping[str, Any]) -> ObjectVersion:
        version_id = entry.get("VersionId")
        return ObjectVersion(
            bucket=self.bucket,
            key=entry["Key"],
            version_id=None if version_id == "null" else version_id,
            etag=entry["ETag"].strip('"'),
            size_bytes=entry["Size"],
            sequencer=None,  # no listing tells it
            uploaded_at=iso(entry["LastModified"]),
        )
