"""`outfeed help`."""

from __future__ import annotations

import pytest

from outfeed import manual


def test_help_lists_every_topic(outfeed):
    done = outfeed("help")
    assert done.exit_code == 0
    assert all(topic in done.stdout for topic in manual.topics())


@pytest.mark.parametrize("topic", manual.topics())
def test_help_prints_a_page(outfeed, topic):
    done = outfeed("help", topic)
    assert done.exit_code == 0
    assert manual.title(topic) in done.stdout


def test_an_unknown_topic_is_a_usage_error_with_a_suggestion(outfeed):
    done = outfeed("help", "webhoks")
    assert done.exit_code == 2
    assert "Did you mean webhooks?" in done.output
