"""Random writes to a watched table, and to a twin that is not watched."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.watch.twins import KINDS, Twins, statements


@st.composite
def programs(draw: st.DrawFn) -> tuple[str, bool, list[str]]:
    name = draw(st.sampled_from(sorted(KINDS)))
    return name, draw(st.booleans()), draw(st.lists(statements(KINDS[name]), min_size=1, max_size=20))


@settings(max_examples=300, deadline=None)
@given(programs())
def test_events_replay_to_the_table_and_the_program_sees_no_difference(program: tuple[str, bool, list[str]]) -> None:
    name, recursive_triggers, written = program
    twins = Twins(KINDS[name], recursive_triggers=recursive_triggers)
    try:
        for statement in written:
            twins.run(statement)
            twins.check_replay()
    finally:
        twins.close()
