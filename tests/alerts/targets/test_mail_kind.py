"""A notice as e-mail, taken by the SMTP server of aiosmtpd."""

from __future__ import annotations

import email
import email.policy
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from outfeed.alerts.targets import AlertTarget, Notice, Outcome, StoredTargets, mail
from outfeed.alerts.targets.kinds import KINDS
from outfeed.config import Settings
from tests.alerts.targets.notices import FORBIDDEN, HOSTILE, USUAL
from tests.certificate import make_certificate
from tests.server import free_port
from tests.waits import wait_until

PASSWORD = "correct-horse"


class Mailbox:
    """Keeps messages. *replies* has other answers by recipient, or by "DATA"."""

    def __init__(self, **replies: str) -> None:
        self.replies = replies
        self.messages: list[EmailMessage] = []
        self.envelopes: list[Envelope] = []
        self.sessions: list[Session] = []

    async def handle_RCPT(  # noqa: N802
        self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]
    ) -> str:
        reply = self.replies.get(address.partition("@")[0], "250 OK")
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, _: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        reply = self.replies.get("DATA", "250 OK")
        if reply.startswith("250"):
            assert isinstance(envelope.content, bytes)
            self.messages.append(email.message_from_bytes(envelope.content, policy=email.policy.default))  # type: ignore[arg-type]
            self.envelopes.append(envelope)
            self.sessions.append(session)
        return reply


@contextmanager
def smtp_server(mailbox: Mailbox, **options: Any) -> Iterator[int]:
    port = free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, server_hostname="mail.test", **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


@pytest.fixture
def stored(database: Any) -> StoredTargets:
    return StoredTargets(database, Settings(webhook_allow="127.0.0.1, localhost"))


def target_at(port: int, *, host: str = "127.0.0.1", to: str = "ops@example.com", **more: str) -> AlertTarget:
    given = {"server": f"{host}:{port}", "from": "outfeed@example.net", "to": to, "security": "none", **more}
    return AlertTarget("ops", "email", KINDS["email"].checked(given))


class Markup(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name == "href"]


def parts(message: EmailMessage) -> tuple[str, str]:
    plain, rich = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert rich is not None
    return plain.get_content(), rich.get_content()


def sent(stored: StoredTargets, notice: Notice, **more: str) -> tuple[Outcome, Mailbox]:
    mailbox = Mailbox()
    with smtp_server(mailbox) as port:
        return stored.send(target_at(port, **more), notice), mailbox


def test_a_notice_is_a_message_with_text_and_html(stored: StoredTargets) -> None:
    outcome, mailbox = sent(stored, USUAL, to="ops@example.com, night@example.org")
    assert outcome == Outcome(is_delivered=True)
    (message,), (envelope,) = mailbox.messages, mailbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("outfeed@example.net", ["ops@example.com", "night@example.org"])
    assert message["Subject"] == "🔔 payments: more than 10 events in 5 min"
    assert message["Message-ID"] == f"<outfeed.{USUAL.event_id}@example.net>"
    assert message["Date"].datetime.isoformat() == "2026-11-30T12:00:00+00:00"
    assert message["Auto-Submitted"] == "auto-generated"
    plain, rich = parts(message)
    for text in ("Order 17 failed: card declined", "order.failed", "shop", "e-17"):
        assert text in plain
        assert text in rich
    assert USUAL.url is not None
    assert USUAL.url in plain
    assert Markup(rich).links == [USUAL.url]
    assert message.defects == []


def test_text_of_an_attacker_adds_neither_header_nor_recipient_nor_markup(stored: StoredTargets) -> None:
    outcome, mailbox = sent(stored, HOSTILE)
    (message,), (envelope,) = mailbox.messages, mailbox.envelopes
    assert outcome.is_delivered
    assert envelope.rcpt_tos == ["ops@example.com"]
    assert set(message.keys()) == {
        "Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
    }  # fmt: skip
    assert message["To"] == "ops@example.com"
    assert "Bcc: all@example.com" in message["Subject"], "as text"
    plain, rich = parts(message)
    assert [sign for sign in FORBIDDEN for text in (plain, rich) if sign in text] == []
    assert Markup(rich).tags <= {"html", "body", "h2", "p", "br", "table", "tr", "td"}


def test_a_retry_has_the_same_message_id(stored: StoredTargets) -> None:
    mailbox = Mailbox()
    with smtp_server(mailbox) as port:
        for _ in range(2):
            stored.send(target_at(port), HOSTILE)
    first, second = mailbox.messages
    assert first["Message-ID"] == second["Message-ID"]


@pytest.mark.parametrize(
    ("replies", "is_delivered", "is_final"),
    [
        ({"DATA": "451 busy"}, False, False), ({"DATA": "554 \x1b[31mspam"}, False, True),
        ({"ops": "450 greylisted"}, False, False), ({"ops": "550 unknown"}, False, True),
        ({"night": "550 unknown"}, True, False),
    ],
)  # fmt: skip
def test_4yz_is_retried_and_5yz_is_final(
    stored: StoredTargets, replies: dict[str, str], is_delivered: bool, is_final: bool
) -> None:
    to = "ops@example.com, night@example.com" if "night" in replies else "ops@example.com"
    with smtp_server(Mailbox(**replies)) as port:
        outcome = stored.send(target_at(port, to=to), USUAL)
    assert (outcome.is_delivered, outcome.is_final) == (is_delivered, is_final), outcome
    assert (outcome.error or "").isprintable()


def authenticator(_: Any, __: Any, ___: Any, mechanism: str, data: Any) -> AuthResult:
    assert mechanism in {"PLAIN", "LOGIN"}
    assert isinstance(data, LoginPassword)
    return AuthResult(success=data.password == PASSWORD.encode(), handled=False)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_the_password_is_sent_over_verified_tls_only(
    stored: StoredTargets, tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch, security: str
) -> None:
    mailbox = Mailbox()
    options = {"tls_context": tls, "require_starttls": True} if security == "starttls" else {"ssl_context": tls}
    signed_in = {"security": security, "user": "outfeed", "password": PASSWORD, "host": "localhost"}
    more = {"auth_require_tls": security == "starttls", "authenticator": authenticator}
    with smtp_server(mailbox, **options, **more) as port:
        untrusted = stored.send(target_at(port, **signed_in), USUAL)
        assert "certificate verify failed" in str(untrusted.error)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        assert stored.send(target_at(port, **signed_in), USUAL) == Outcome(is_delivered=True)
        wrong = stored.send(target_at(port, **{**signed_in, "password": "wrong-horse"}), USUAL)
    assert (wrong.is_delivered, wrong.is_final) == (False, True)
    assert "wrong-horse" not in str(wrong)
    assert len(mailbox.messages) == 1
    assert mailbox.sessions[0].ssl if security == "starttls" else True


def test_without_starttls_no_message_is_sent(stored: StoredTargets) -> None:
    mailbox = Mailbox()
    with smtp_server(mailbox) as port:
        outcome = stored.send(target_at(port, security="starttls"), USUAL)
    assert (outcome.is_final, outcome.error) == (True, "the server does not offer STARTTLS")
    assert mailbox.messages == []


def test_a_cancel_ends_a_send_to_a_silent_server(stored: StoredTargets) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        outcomes: list[Outcome] = []
        target = target_at(silent.getsockname()[1])
        sending = threading.Thread(target=lambda: outcomes.append(stored.send(target, USUAL)))
        sending.start()
        connection, _ = silent.accept()
        wait_until(lambda: (stored.cancel(), not sending.is_alive())[1], "the send has ended")
        sending.join()
        connection.close()
    assert not outcomes[0].is_delivered
    assert not outcomes[0].is_final


def test_a_send_to_a_silent_server_has_a_time_limit(stored: StoredTargets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "TOTAL_SECS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        outcome = stored.send(target_at(silent.getsockname()[1]), USUAL)
    assert (outcome.is_delivered, outcome.is_final) == (False, False)


def test_a_private_address_is_blocked(database: Any) -> None:
    outcome = StoredTargets(database, Settings()).send(target_at(25), USUAL)
    assert "is not public" in str(outcome.error)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"to": "a@b.example\r\nBcc: c@d.example"}, "not an e-mail address"),
        ({"to": ""}, "1 to 20"),
        ({"to": ", ".join(f"a{number}@b.example" for number in range(21))}, "1 to 20"),
        ({"to": "Ops <ops@b.example>"}, "not an e-mail address"),
        ({"from": "unknown"}, "not an e-mail address"),
        ({"server": "smtp.example.com:0"}, "server: must be"),
        ({"server": "smtp.example.com/x"}, "server: must be"),
        ({"from": "a@b.example, c@b.example"}, "one address"),
        ({"security": "ssl"}, "starttls, tls or none"),
        ({"user": "x"}, "belong together"),
        ({"security": "none", "user": "x", "password": "SECRET"}, "needs security"),
    ],
)
def test_a_setting_that_cannot_work_is_rejected(given: dict[str, str], problem: str) -> None:
    usual = {"to": "ops@example.com", "from": "outfeed@example.com", "server": "smtp.example.com"}
    with pytest.raises(ValueError, match=problem) as caught:
        KINDS["email"].checked({**usual, **given})
    assert "SECRET" not in str(caught.value)
