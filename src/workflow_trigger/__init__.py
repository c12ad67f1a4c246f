"""Fired by S3 object events, runs an Unstructured workflow on each new object and records its job in DynamoDB."""

__version__ = "0.3.0"
