"""A function that calls the platform by the vendor's SDK."""

import boto3
from aws_lambda_powertools import Logger
from unstructured_client import UnstructuredClient

logger = Logger()
s3 = boto3.client("s3")
dynamodb = boto3.client("dynamodb")
platform = UnstructuredClient(api_key_auth="key")


def handler(_event: object, _context: object) -> dict[str, str]:
    """Do nothing."""
    return {}
