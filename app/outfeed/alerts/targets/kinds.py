"""Every kind of target, one line each."""

from __future__ import annotations

from outfeed.alerts.targets.by_apprise import AppriseKind
from outfeed.alerts.targets.discord import DiscordKind
from outfeed.alerts.targets.kind import Kind
from outfeed.alerts.targets.mail import MailKind
from outfeed.alerts.targets.ntfy import NtfyKind
from outfeed.alerts.targets.slack import SlackKind
from outfeed.alerts.targets.teams import TeamsKind
from outfeed.alerts.targets.webhook import WebhookKind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (WebhookKind(), SlackKind(), DiscordKind(), TeamsKind(), NtfyKind(), MailKind(), AppriseKind())
}
