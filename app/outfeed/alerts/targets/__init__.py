"""Targets: where notices of alerts are sent.

The sender of `alerts/sender.py` calls them. They know neither rules nor the queue. Each kind of target is a module of
its own, listed in `kinds.py`.
"""

from outfeed.alerts.targets.notice import AlertTarget, Notice, NoticeKind, Outcome, Targets
from outfeed.alerts.targets.stored import StoredTargets

__all__ = ["AlertTarget", "Notice", "NoticeKind", "Outcome", "StoredTargets", "Targets"]
