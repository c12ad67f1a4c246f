"""What is in a bucket, as object versions: a page at a time, however many there are."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from workflow_trigger.domain.clock import iso
from workflow_trigger.domain.document import ObjectVersion

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def listed_versions(client: "S3Client", bucket: str, prefix: str, *, old_ones: bool = False) -> Iterator[ObjectVersion]:
    """The newest version of each key under a prefix; with `old_ones` every version that an event can have named."""
    if client.get_bucket_versioning(Bucket=bucket).get("Status") is None:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        yield from (_version(bucket, entry) for page in pages for entry in page.get("Contents", []))
        return
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Versions", []):
            # Of those that were put while the bucket had no versions, an event names only the newest.
            if entry["IsLatest"] or (old_ones and entry["VersionId"] != "null"):
                yield _version(bucket, entry)


def _version(bucket: str, entry: Mapping[str, Any]) -> ObjectVersion:
    version_id = entry.get("VersionId")
    return ObjectVersion(
        bucket=bucket,
        key=entry["Key"],
        version_id=None if version_id == "null" else version_id,
        etag=entry["ETag"].strip('"'),
        size_bytes=entry["Size"],
        sequencer=None,  # no listing tells it
        uploaded_at=iso(entry["LastModified"]),
    )
