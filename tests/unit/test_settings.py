import pytest

from workflow_trigger.domain.errors import SettingsError
from workflow_trigger.settings import Settings, api_root

GOOD = {
    "UNSTRUCTURED_API_URL": "https://platform.unstructuredapp.io",
    "WORKFLOW_IDS": "a-1, b-2,a-1",
    "API_KEY_SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:1:secret:key",
    "LEDGER_TABLE": "ledger",
    "WORKFLOWS_TABLE": "workflows",
}


def test_good_environment_gives_settings_with_defaults() -> None:
    settings = Settings.from_environment(GOOD)
    assert settings.workflow_ids == ("a-1", "b-2")
    assert (settings.max_files_per_run, settings.max_bytes_per_run) == (10, 100_000_000)
    assert (settings.poll_seconds, settings.retention_days) == (10, 365)


def test_a_workflow_in_two_spellings_is_one() -> None:
    spellings = ["6F0F2A4E-9D0B-4B6E-8F58-8F6F8AD0A1C7", "6f0f2a4e-9d0b-4b6e-8f58-8f6f8ad0a1c7"]
    settings = Settings.from_environment(GOOD | {"WORKFLOW_IDS": ", ".join([*spellings, "b-2"])})
    assert settings.workflow_ids == (spellings[0], "b-2")


def test_all_faults_are_reported_together() -> None:
    faulty = GOOD | {"WORKFLOW_IDS": "a b", "MAX_FILES_PER_RUN": "26", "UNSTRUCTURED_API_URL": "http://example.com"}
    del faulty["LEDGER_TABLE"]
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(faulty)
    for name in ("WORKFLOW_IDS", "MAX_FILES_PER_RUN", "UNSTRUCTURED_API_URL", "LEDGER_TABLE"):
        assert name in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://platform.unstructuredapp.io",
        "https://platform.unstructuredapp.io/",
        "https://platform.unstructuredapp.io/api/v1",
        "https://platform.unstructuredapp.io/api/v1/",
        "https://platform.unstructuredapp.io/api/v1/workflows/f0a1b2c3-4d5e-6f7a-8b9c-0d1e2f3a4b5c/run",
    ],
)
def test_all_forms_of_the_address_give_the_same_root(url: str) -> None:
    assert api_root(url) == "https://platform.unstructuredapp.io"


def test_own_host_with_a_path_keeps_it() -> None:
    assert api_root("https://vpc.example.com:8443/unstructured/api/v1") == "https://vpc.example.com:8443/unstructured"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000/api/v1", "http://[::1]:8000"])
def test_plain_http_is_for_this_machine(url: str) -> None:
    assert api_root(url).startswith("http://")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "ftp://example.com",
        "example.com",
        "https://",
        "https://u:p@example.com",
        "https://e.com?a=1",
        "https://platform.unstructuredapp.io/api/v1/jobs/",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        api_root(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.unstructuredapp.io/general/v0/general",  # case 37
        "https://api.unstructured.io/api/v1/partition",
        "https://api.unstructured.io/api/v1/transform/jobs",
    ],
)
def test_addresses_of_the_vendors_other_products_are_named_as_such(url: str) -> None:
    with pytest.raises(ValueError, match="Partition or Transform API"):
        api_root(url)
