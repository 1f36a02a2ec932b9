"""outfeed consumer: what it makes and changes."""

from outfeed.store import checkpoint


class TestAdd:
    def test_a_repeat_that_says_nothing_of_protection_leaves_it(self, outfeed, database):
        assert outfeed("consumer", "add", "ops").output == "Consumer ops is unprotected.\n"
        assert "protected: pruning waits" in outfeed("consumer", "add", "ops", "--protected").output
        assert "protected: pruning waits" in outfeed("consumer", "add", "ops").output
        assert [each.is_protected for each in checkpoint.list_checkpoints(database)] == [True]
        assert outfeed("consumer", "add", "ops", "--unprotected").output == "Consumer ops is unprotected.\n"
