"""The Unstructured platform, by its HTTP API."""
