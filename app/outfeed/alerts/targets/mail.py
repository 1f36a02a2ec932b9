"""Notices by e-mail, over SMTP (RFC 5321) with STARTTLS or TLS (RFC 8314)."""

from __future__ import annotations

import contextlib
import html
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import ClassVar

from outfeed.alerts.targets import wording
from outfeed.alerts.targets.kind import Kind, Outbound, Setting, Values
from outfeed.alerts.targets.notice import Notice, Outcome
from outfeed.errors import InvalidTarget, OutfeedError
from outfeed.webhooks.addresses import Allowlist

TOTAL_SECS = 25.0
CONNECT_SECS = 5.0
READ_SECS = 15.0
MAX_RECIPIENTS = 20
MAX_SUBJECT_UNITS = 200
PORTS = {"starttls": 587, "tls": 465, "none": 25}
_SERVER = re.compile(r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9a-fA-F:.]+\])(?::(?P<port>\d{1,5}))?")


class MailKind(Kind):
    """E-mail to some addresses.

    The Message-ID follows from the event's id, so that mail programs show a repeated notice once.
    """

    name: ClassVar = "email"
    label: ClassVar = "E-mail"
    settings: ClassVar = (
        Setting("to", "To", f"Addresses, separated by commas, at most {MAX_RECIPIENTS}.", is_required=True),
        Setting("from", "From", "Address of the sender.", is_required=True),
        Setting("server", "Server", "HOST or HOST:PORT of the SMTP server.", is_required=True),
        Setting("security", "Security", "starttls (port 587, the default), tls (port 465) or none (port 25)."),
        Setting("user", "User", "Name to sign in with."),
        Setting("password", "Password", "Password to sign in with.", is_secret=True, is_sent=True),
    )

    def checked(self, given: Values) -> dict[str, str]:
        found = {name: value for name, value in given.items() if value}
        found["security"] = security = given.get("security") or "starttls"
        if security not in PORTS:
            raise InvalidTarget("security", "must be starttls, tls or none")
        found["to"] = ", ".join(_addresses("to", given["to"], MAX_RECIPIENTS))
        (found["from"],) = _addresses("from", given["from"], 1)
        _server(found)
        if bool(given.get("user")) != bool(given.get("password")):
            raise InvalidTarget("password", "user and password belong together")
        if given.get("password") and security == "none":
            raise InvalidTarget("security", "a password needs security starttls or tls")
        return found

    def place(self, settings: Values) -> str:
        return f"{settings['to']} by {_server(settings)[0]}"

    def endpoint(self, settings: Values) -> tuple[str, int]:
        return _server(settings)

    def send(self, settings: Values, notice: Notice, outbound: Outbound) -> Outcome:
        try:
            with _connection(*_server(settings), outbound) as connected:
                return _deliver(connected, settings, notice)
        except smtplib.SMTPRecipientsRefused as error:
            code, text = next(iter(error.recipients.values()))
            return _failed(code, text)
        except smtplib.SMTPResponseException as error:
            return _failed(error.smtp_code, error.smtp_error)
        except smtplib.SMTPNotSupportedError as error:
            return Outcome(False, str(error), is_final=True)
        except (OSError, OutfeedError, smtplib.SMTPException) as error:
            return Outcome(False, str(getattr(error, "strerror", None) or error) or type(error).__name__)


def _deliver(connected: socket.socket, settings: Values, notice: Notice) -> Outcome:
    """Send the message.

    If the server accepts some of the recipients, it is delivered.
    """
    smtp = smtplib.SMTP(local_hostname=socket.gethostname())
    smtp.sock = connected
    try:
        _greet(smtp, settings)
        smtp.send_message(message(settings, notice), settings["from"], settings["to"].split(", "))
        with contextlib.suppress(OSError, smtplib.SMTPException):
            smtp.quit()  # the message has been accepted
    finally:
        smtp.close()
    return Outcome(is_delivered=True)


def _greet(smtp: smtplib.SMTP, settings: Values) -> None:
    """Start the dialogue: TLS and the sign-in, if set."""
    host, _ = _server(settings)
    if settings["security"] == "tls":
        smtp.sock = _over_tls(smtp.sock, host)
    code, text = smtp.getreply()
    if code != 220:
        raise smtplib.SMTPConnectError(code, text)
    if settings["security"] == "starttls":
        _start_tls(smtp, host)
    if settings.get("user"):
        smtp.login(settings["user"], settings["password"])


def _start_tls(smtp: smtplib.SMTP, host: str) -> None:
    """Continue over TLS, and forget what the server said before.

    smtplib's own method takes the name for the certificate from the address that it connected to.
    """
    smtp.ehlo_or_helo_if_needed()
    if not smtp.has_extn("starttls"):
        raise smtplib.SMTPNotSupportedError("the server does not offer STARTTLS")
    code, text = smtp.docmd("STARTTLS")
    if code != 220:
        raise smtplib.SMTPResponseException(code, text)
    smtp.sock = _over_tls(smtp.sock, host)
    smtp.file = None  # bytes that came before TLS are dropped
    smtp.helo_resp = smtp.ehlo_resp = None
    smtp.esmtp_features = {}
    smtp.does_esmtp = False


def _over_tls(connected: socket.socket | None, host: str) -> ssl.SSLSocket:
    assert connected is not None
    return ssl.create_default_context().wrap_socket(connected, server_hostname=host)


@contextlib.contextmanager
def _connection(host: str, port: int, outbound: Outbound) -> Iterator[socket.socket]:
    """Yield a connection to a checked address, for TOTAL_SECS at most.

    Raises TargetForbidden, TargetUnresolvable, DeliveryCancelled, OSError.
    """
    with _connect(host, port, outbound.allowlist) as connected:
        end = _Shutdown(connected)
        late = threading.Timer(TOTAL_SECS, end)
        late.start()
        try:
            with outbound.cancellable(end):
                yield connected
        finally:
            late.cancel()
            late.join()
            end.close()


class _Shutdown:
    """Shuts a socket down, from any thread."""

    def __init__(self, connected: socket.socket) -> None:
        self._twin = connected.dup()  # TLS takes the first one over

    def __call__(self) -> None:
        with contextlib.suppress(OSError):
            self._twin.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._twin.close()


def _connect(host: str, port: int, allowlist: Allowlist) -> socket.socket:
    problem = OSError("has no address")
    for endpoint in allowlist.resolve(host, port)[:3]:
        connecting = socket.socket(endpoint.family, socket.SOCK_STREAM)
        connecting.settimeout(CONNECT_SECS)
        try:
            connecting.connect(endpoint.sockaddr)
        except OSError as error:
            connecting.close()
            problem = error
        else:
            connecting.settimeout(READ_SECS)
            return connecting
    raise problem


def _failed(code: int, text: bytes | str) -> Outcome:
    """Return the outcome of a reply: 5yz is final, 4yz is not."""
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return Outcome(False, f"the server answered {code} {shown}", is_final=500 <= code < 600)


def message(settings: Values, notice: Notice) -> EmailMessage:
    """Return the message of a notice, as plain text and HTML."""
    subject = wording.within(wording.title(notice), MAX_SUBJECT_UNITS)
    found = EmailMessage()
    found["Subject"] = subject
    found["From"] = settings["from"]
    found["To"] = settings["to"]
    found["Date"] = format_datetime(datetime.fromisoformat(notice.occurred_at))
    found["Message-ID"] = f"<outfeed.{wording.plain_id(notice.event_id)}@{settings['from'].rpartition('@')[2]}>"
    found["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office replies
    if notice.level == "error":
        found["Importance"] = "high"
    found.set_content(f"{subject}\n\n{wording.plain(notice)}\n")
    found.add_alternative(_html(subject, notice), subtype="html")
    return found


def _html(subject: str, notice: Notice) -> str:
    escape = html.escape
    text = "<br>".join(map(escape, wording.text(notice).split("\n")))
    rows = "".join(
        f'<tr><td style="color:#555;padding-right:1em">{escape(name)}</td><td>{escape(value)}</td></tr>'
        for name, value in wording.fields(notice)
    )
    link = f'<p><a href="{escape(notice.url)}">Open in Outfeed</a></p>' if notice.url else ""
    return (
        f'<!doctype html><html><body style="font-family:sans-serif"><h2 style="font-size:1.2em">{escape(subject)}</h2>'
        f"<p>{text}</p><table>{rows}</table>{link}</body></html>\n"
    )


def _server(settings: Values) -> tuple[str, int]:
    """Return host and port. Raises InvalidTarget."""
    match = _SERVER.fullmatch(settings["server"].strip())
    port = int(match["port"] or PORTS[settings["security"]]) if match else 0
    if match is None or not 1 <= port <= 65_535:
        raise InvalidTarget("server", "must be HOST or HOST:PORT, like smtp.example.com:587")
    return match["host"].strip("[]"), port


def _addresses(setting: str, text: str, most: int) -> list[str]:
    """Return the addresses in *text*. Raises InvalidTarget."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not 1 <= len(found) <= most:
        raise InvalidTarget(setting, f"must have 1 to {most} addresses" if most > 1 else "must be one address")
    for each in found:
        if not _is_address(each):
            raise InvalidTarget(setting, f"{each!r:.80} is not an e-mail address")
    return found


def _is_address(text: str) -> bool:
    try:
        address = Address(addr_spec=text)
    except (ValueError, IndexError, AttributeError):
        return False
    return text.isascii() and text.isprintable() and " " not in text and bool(address.username and address.domain)
