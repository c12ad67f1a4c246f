import re

import pytest

from workflow_trigger.domain.document import Route, route_of
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


def test_numbers_may_have_fractions_for_cloudformation_takes_them() -> None:
    numbers = {"MAX_MEGABYTES_PER_FILE": "1.5", "MIN_BYTES": "10.5", "POLL_SECONDS": "2.5", "MAX_FILES_PER_RUN": "2.5"}
    numbers |= {"LEDGER_RETENTION_DAYS": "30.5", "MAX_MEGABYTES_PER_RUN": "1e1"}
    found = Settings.from_environment(GOOD | numbers)
    assert (found.poll_seconds, found.max_files_per_run, found.retention_days) == (2.5, 2, 30.5)
    assert found.max_bytes_per_run == 10_000_000
    assert found.selection.reason_against("a.pdf", 1_500_000) is None
    assert found.selection.reason_against("a.pdf", 1_500_001) == "larger than MaxMegabytesPerFile (1.5)"
    assert found.selection.reason_against("a.pdf", 10) == "smaller than MinBytes (10.5)"


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "0.5", "51", "ten", "1,5"])
def test_what_is_no_number_of_the_range_is_refused(number: str) -> None:
    with pytest.raises(SettingsError, match=r"POLL_SECONDS=.*must be a number from 1 to 50"):
        Settings.from_environment(GOOD | {"POLL_SECONDS": number})


@pytest.mark.parametrize("name", ["ONLY_LATEST_VERSION", "ONLY_SUPPORTED_TYPES", "READ_TAGS", "SKIPPED_ROWS"])
@pytest.mark.parametrize("text", ["true", "On", "1", "no"])
def test_switch_is_on_or_off_and_nothing_else(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}='{text}': must be on or off"):
        Settings.from_environment(GOOD | {name: text})


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
        "https://platform.unstructuredapp.io/docs",
        "https://platform.unstructuredapp.io/foo/bar",
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
        "https://api.unstructuredapp.io",
    ],
)
def test_addresses_of_the_vendors_other_products_are_named_as_such(url: str) -> None:
    with pytest.raises(ValueError, match="Partition or Transform API"):
        api_root(url)


def test_address_of_the_web_interface_is_named_as_such() -> None:
    with pytest.raises(ValueError, match="is the address of the web interface"):
        api_root("https://platform.unstructured.io/workflows")


ID1, ID2, ID3 = (f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2, 3))


def test_routes_are_key_prefixes_with_workflows_of_their_own() -> None:
    text = f" invoices/: {ID1}, {ID2} ; legal/x=1/:{ID3}:law/;"
    found = Settings.from_environment(GOOD | {"ROUTES": text})
    assert found.routes == (Route("invoices/", (ID1, ID2)), Route("legal/x=1/", (ID3,), "law/"))
    legal = found.of_route(found.routes[1])
    assert (legal.route, legal.workflow_ids, legal.results_prefix) == ("legal/x=1/", (ID3,), "results/law/")
    assert Settings.from_environment(GOOD).routes == ()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"ROUTES": "invoices/"}, "is not PREFIX: WORKFLOW"),
        ({"ROUTES": f"a/:{ID1}:law"}, "must end in a slash"),
        ({"ROUTES": f"a/:{ID1};a/:{ID2}"}, "'a/' is there twice"),
        ({"ROUTES": f"a/:{ID1};b/:{ID1.upper()}"}, f"workflow {ID1} is in more than one route"),
        ({"ROUTES": f"a/:{ID1}", "WORKFLOW_IDS": ID1}, "is in more than one route"),
        ({"ROUTES": f"a/:{ID1}", "KEY_PREFIX": "in/"}, "'a/' is not under KEY_PREFIX"),
    ],
)
def test_faults_of_routes_are_named(variables: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)):
        Settings.from_environment(GOOD | variables)


@pytest.mark.parametrize(
    ("key", "route"), [("a/1.pdf", "a/"), ("a/b/1.pdf", "a/b/"), ("b/1.pdf", ""), ("a", ""), ("A/1.pdf", "")]
)
def test_longest_prefix_is_the_route(key: str, route: str) -> None:
    assert route_of(key, (Route("a/", (ID1,)), Route("a/b/", (ID2,)))) == route
