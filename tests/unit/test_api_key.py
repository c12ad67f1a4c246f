import pytest

from workflow_trigger.adapters.unstructured.api_key import key_in


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("abc123", "abc123"),
        ("  abc123\n", "abc123"),
        ("\ufeffabc123\r\n", "abc123"),
        ("'abc123'", "abc123"),
        ('"abc123"', "abc123"),
        ('\ufeff{"key": "\\"abc123\\""}', "abc123"),
        ('{"UNSTRUCTURED_API_KEY": "abc123"}', "abc123"),
        ('{"key": " abc123 "}', "abc123"),
        ('{"a": "1", "b": "2"}', ""),
        ('{"a": 1}', ""),
        ("{broken", ""),
        ("", ""),
        ("   ", ""),
        ("two words", ""),
        ("line\r\nbreak", ""),
        ("schlüssel", ""),
    ],
)
def test_key_is_the_text_or_the_one_field_of_an_object(secret: str, key: str) -> None:
    assert key_in(secret) == key
