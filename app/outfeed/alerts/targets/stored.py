"""The targets of the database, as the sender of alerts uses them."""

from __future__ import annotations

from outfeed.alerts.targets import store
from outfeed.alerts.targets.kind import Outbound, shown_error
from outfeed.alerts.targets.kinds import KINDS
from outfeed.alerts.targets.notice import AlertTarget, Notice, Outcome
from outfeed.config import Settings
from outfeed.errors import DeliveryCancelled, UnknownName
from outfeed.store.database import Database
from outfeed.webhooks.addresses import Allowlist


class StoredTargets:
    """The targets that `outfeed target` manages. Any thread may use them."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._outbound = Outbound(Allowlist.parse(settings.webhook_allow))

    def find(self, name: str) -> AlertTarget | None:
        """Return the target, or None if there is none. Raises DatabaseError."""
        try:
            return store.find(self._database, name)
        except UnknownName:
            return None

    def send(self, target: AlertTarget, notice: Notice) -> Outcome:
        """Send the notice, in 30 seconds at most.

        Never raises for a failure of the target. The error has no secret.
        """
        kind = KINDS.get(target.kind)
        if kind is None:
            return Outcome(False, f"this version of Outfeed has no targets of the kind {target.kind}", is_final=True)
        try:
            found = kind.send(target.settings, notice, self._outbound)
        except DeliveryCancelled as error:
            return Outcome(False, str(error))
        if found.error is None:
            return found
        error_text = shown_error(found.error, kind.secrets(target.settings))
        return Outcome(found.is_delivered, error_text, found.is_final, found.retry_after_secs)

    def cancel(self) -> None:
        """Make every send in progress end soon, and reject every later one."""
        self._outbound.cancel()
