"""`outfeed help`."""

from __future__ import annotations

import pytest

from outfeed import manual


def test_it_lists_every_topic(outfeed):
    done = outfeed("help")
    assert done.exit_code == 0
    assert all(topic in done.stdout for topic in manual.topics())


@pytest.mark.parametrize("topic", manual.topics())
def test_it_prints_a_page(outfeed, topic):
    done = outfeed("help", topic)
    assert done.exit_code == 0
    assert manual.title(topic) in done.stdout


def test_an_unknown_topic_is_a_misuse_and_gets_the_nearest(outfeed):
    done = outfeed("help", "webhoks")
    assert done.exit_code == 2
    assert "Did you mean webhooks?" in done.output
