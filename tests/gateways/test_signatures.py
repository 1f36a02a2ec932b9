"""Signatures: the vectors of each scheme, other bodies, and old requests."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook

from outfeed.errors import InvalidSignature
from outfeed.gateways.incoming import signatures
from outfeed.gateways.incoming.mapping import Scheme
from outfeed.gateways.incoming.signatures import verify

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
BODY = b'{"a": 1}'
SECRET = "0123456789abcdef"
# The example of GitHub's documentation.
GITHUB_SECRET, GITHUB_BODY = "It's a Secret to Everybody", b"Hello, World!"
GITHUB_SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def hexed(content: bytes, secret: str = SECRET) -> str:
    return hmac.digest(secret.encode(), content, hashlib.sha256).hex()


def unix(ago_secs: float = 0) -> str:
    return str(int((NOW - timedelta(seconds=ago_secs)).timestamp()))


def standard(ago_secs: float = 0, secret: str = STANDARD_SECRET) -> dict[str, str]:
    """Return the headers that the library of Standard Webhooks makes."""
    signature = Webhook(secret).sign("msg_1", NOW - timedelta(seconds=ago_secs), BODY.decode())
    return {"webhook-id": "msg_1", "webhook-timestamp": unix(ago_secs), "webhook-signature": signature}


def grafana(ago_secs: float) -> dict[str, str]:
    time = unix(ago_secs)
    signed = hexed(time.encode() + b":" + BODY)
    return {"x-grafana-alerting-signature": signed, "x-grafana-alerting-timestamp": time}


def check(scheme: Scheme, headers: dict[str, str], secret: str = SECRET, body: bytes = BODY) -> None:
    verify(scheme, secret, headers, body, NOW)


def test_the_example_of_githubs_documentation_is_accepted() -> None:
    check(Scheme.GITHUB, {"x-hub-signature-256": GITHUB_SIGNATURE}, GITHUB_SECRET, GITHUB_BODY)


def test_grafana_signs_the_body_or_the_time_and_the_body() -> None:
    check(Scheme.GRAFANA, {"x-grafana-alerting-signature": hexed(BODY)})
    check(Scheme.GRAFANA, grafana(0))


def test_a_signature_of_the_standard_webhooks_library_is_accepted_among_others() -> None:
    check(Scheme.STANDARD, standard(), STANDARD_SECRET)
    other = standard(secret="whsec_" + "A" * 40)["webhook-signature"]
    several = {**standard(), "webhook-signature": f"v1a,other {other} {standard()['webhook-signature']}"}
    check(Scheme.STANDARD, several, STANDARD_SECRET)


@pytest.mark.parametrize("ago_secs", [-299, 299])
def test_a_request_within_the_tolerance_is_accepted(ago_secs: int) -> None:
    check(Scheme.STANDARD, standard(ago_secs), STANDARD_SECRET)
    check(Scheme.GRAFANA, grafana(ago_secs))


@pytest.mark.parametrize(("ago_secs", "problem"), [(301, "is 301 s old"), (-301, "is 301 s in the future")])
def test_a_replayed_request_and_a_wrong_clock_are_rejected_with_the_distance(ago_secs: int, problem: str) -> None:
    with pytest.raises(InvalidSignature, match=f"webhook-timestamp: {problem}, and at most 300 s"):
        check(Scheme.STANDARD, standard(ago_secs), STANDARD_SECRET)
    with pytest.raises(InvalidSignature, match=f"x-grafana-alerting-timestamp: {problem}"):
        check(Scheme.GRAFANA, grafana(ago_secs))


@pytest.mark.parametrize("time", ["", "soon", "-1", "1e9", "9" * 30, "٣", "1769860800.5"])
def test_a_time_that_is_no_unix_time_is_rejected(time: str) -> None:
    with pytest.raises(InvalidSignature, match=r"webhook-timestamp: (must be a time in Unix seconds|is missing)"):
        check(Scheme.STANDARD, {**standard(), "webhook-timestamp": time}, STANDARD_SECRET)


SIGNED = standard()["webhook-signature"]
WRONG = {
    "another body, GitHub": (Scheme.GITHUB, {"x-hub-signature-256": f"sha256={hexed(b'other')}"}),
    "another secret, GitHub": (Scheme.GITHUB, {"x-hub-signature-256": f"sha256={hexed(BODY, 'another secret')}"}),
    "SHA-1, GitHub": (Scheme.GITHUB, {"x-hub-signature-256": "sha1=" + "0" * 40}),
    "not ASCII, GitHub": (Scheme.GITHUB, {"x-hub-signature-256": "sha256=é\ud800"}),
    "another body, Grafana": (Scheme.GRAFANA, {"x-grafana-alerting-signature": hexed(b"other")}),
    "another time, Grafana": (Scheme.GRAFANA, grafana(0) | {"x-grafana-alerting-timestamp": unix(1)}),
    "another id, Standard": (Scheme.STANDARD, standard() | {"webhook-id": "msg_2"}),
    "another time, Standard": (Scheme.STANDARD, standard() | {"webhook-timestamp": unix(1)}),
    "another version, Standard": (Scheme.STANDARD, standard() | {"webhook-signature": f"v2{SIGNED[2:]}"}),
    "too many, Standard": (Scheme.STANDARD, standard() | {"webhook-signature": "v1,x " * 10 + SIGNED}),
}  # fmt: skip


@pytest.mark.parametrize(("scheme", "headers"), WRONG.values(), ids=WRONG)
def test_a_wrong_signature_is_rejected(scheme: Scheme, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidSignature, match=r"does not fit the body|more than 10 signatures"):
        check(scheme, headers, STANDARD_SECRET if scheme is Scheme.STANDARD else SECRET)


def test_a_secret_without_a_scheme_accepts_no_request() -> None:
    with pytest.raises(InvalidSignature, match="mapping"):
        check(Scheme.NONE, {})


@pytest.mark.parametrize(
    ("scheme", "header"),
    [
        (Scheme.GITHUB, "x-hub-signature-256"),
        (Scheme.GRAFANA, "x-grafana-alerting-signature"),
        *((Scheme.STANDARD, name) for name in standard()),
    ],
)
def test_a_missing_header_is_named(scheme: Scheme, header: str) -> None:
    headers = {name: value for name, value in standard().items() if name != header}
    with pytest.raises(InvalidSignature, match=f"^{header}: is missing"):
        check(scheme, headers, STANDARD_SECRET)


class TestSecrets:
    @pytest.mark.parametrize("scheme", [Scheme.GITHUB, Scheme.GRAFANA, Scheme.STANDARD])
    def test_a_new_secret_is_accepted(self, scheme: Scheme) -> None:
        secret = signatures.new_secret(scheme)
        assert signatures.check_secret(scheme, f"{secret}\n") == secret

    @pytest.mark.parametrize(
        ("scheme", "text"),
        [(Scheme.GITHUB, "short"), (Scheme.STANDARD, "whsec_AAAA"), (Scheme.STANDARD, "whsec_" + "!" * 40)],
    )
    def test_a_weak_secret_is_rejected_without_its_text(self, scheme: Scheme, text: str) -> None:
        with pytest.raises(ValueError, match="secret") as refused:
            signatures.check_secret(scheme, text)
        assert text not in str(refused.value)
