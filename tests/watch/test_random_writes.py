"""Random writes to a watched table, and to a twin that is not watched.

`scripts/soak` runs more of them.
"""

from __future__ import annotations

from hypothesis import given, settings

from tests.watch.twins import Program, check, programs


@settings(max_examples=300, deadline=None)
@given(programs())
def test_events_replay_to_the_table_and_the_program_sees_no_difference(program: Program) -> None:
    check(program)
