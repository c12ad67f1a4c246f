"""Every call to a bucket that the stack did not make says which account must own it."""

from collections.abc import Collection
from typing import Any

PARAMETER = "ExpectedBucketOwner"


def expect_owner(client: Any, buckets: Collection[str], account_id: str) -> None:
    """Add the owner to all calls of an S3 client to these buckets. S3 answers 403 where another account owns one.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
    """

    def add(params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
        if params.get("Bucket") in buckets and PARAMETER in model.input_shape.members:
            return {**params, PARAMETER: account_id}
        return params

    client.meta.events.register("provide-client-params.s3", add)
