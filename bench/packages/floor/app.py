"""The floor: what everybody's function begins with."""

import boto3
from aws_lambda_powertools import Logger

logger = Logger()
s3 = boto3.client("s3")
dynamodb = boto3.client("dynamodb")


def handler(_event: object, _context: object) -> dict[str, str]:
    """Do nothing."""
    return {}
