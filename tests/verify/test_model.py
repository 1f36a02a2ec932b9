"""The model of a connection: each breach of the specification is found."""

from __future__ import annotations

import pytest

from outfeed.verify.model import Breach, Model, StartAt, ToldVerdict

EPOCH, OTHER = "a", "b"


def known(epoch: str, after: int, up_to: int) -> list[int]:
    """Return the seqs of a history of ten events."""
    return [seq for seq in range(1, 11) if epoch == EPOCH and after < seq <= up_to]


def model_at(cursor: int) -> Model:
    model = Model(StartAt(cursor, EPOCH), known)
    model.take_verdict(ToldVerdict("resumed", EPOCH, cursor, 10), cursor)
    return model


@pytest.mark.parametrize(
    ("start", "verdict", "sentence"),
    [
        (StartAt(), ToldVerdict("resumed", EPOCH, 5, 10), "V2"),
        (StartAt(5, OTHER), ToldVerdict("resumed", EPOCH, 5, 10), "V3"),
        (StartAt(11, EPOCH), ToldVerdict("resumed", EPOCH, 11, 10), "V3"),
        (StartAt(5, EPOCH), ToldVerdict("reset", EPOCH, 10, 10), "V9"),
        (StartAt(5, EPOCH), ToldVerdict("live", EPOCH, 10, 10), "V5"),
        (StartAt(5, EPOCH), ToldVerdict("resumed", EPOCH, 6, 10), "V8"),
        (StartAt(5, EPOCH), ToldVerdict("gap", EPOCH, 8, 10, (7, 8)), "V4"),
        (StartAt(5, EPOCH), ToldVerdict("gap", EPOCH, 9, 10, (6, 8)), "V4"),
        (StartAt(5, EPOCH), ToldVerdict("gap", EPOCH, 9, 10), "V4"),
        (StartAt(0), ToldVerdict("reset", EPOCH, 10, 10), "V9"),
    ],
)
def test_a_wrong_verdict_is_a_breach(start: StartAt, verdict: ToldVerdict, sentence: str) -> None:
    with pytest.raises(Breach) as found:
        Model(start, known).take_verdict(verdict, verdict.after or 0)
    assert found.value.sentence == sentence


@pytest.mark.parametrize(
    ("start", "verdict"),
    [
        (StartAt(), ToldVerdict("live", EPOCH, 10, 10)),
        (StartAt(0), ToldVerdict("resumed", EPOCH, 0, 10)),
        (StartAt(5, EPOCH), ToldVerdict("resumed", EPOCH, None, 10)),
        (StartAt(5, EPOCH), ToldVerdict("gap", EPOCH, 8, 10, (6, 8))),
        (StartAt(5, OTHER), ToldVerdict("reset", EPOCH, 10, 10)),
        (StartAt(11, EPOCH), ToldVerdict("reset", EPOCH, 10, 10)),
    ],
)
def test_a_right_verdict_is_accepted(start: StartAt, verdict: ToldVerdict) -> None:
    model = Model(start, known)
    model.take_verdict(verdict, 7)
    assert (model.verdict, model.cursor) == (verdict.kind, 7)


def test_a_copy_may_be_behind_the_cursor() -> None:
    model = Model(StartAt(11, EPOCH), known, is_copy=True)
    model.take_verdict(ToldVerdict("resumed", EPOCH, 11, 10), 11)
    assert model.cursor == 11


@pytest.mark.parametrize(
    ("seqs", "prev", "sentence"),
    [([7], None, "E1"), ([6, 8], None, "E1"), ([5], None, "E1"), ([6, 6], None, "E1"), ([6], 6, "E2")],
)  # fmt: skip
def test_a_missing_repeated_or_swapped_event_is_a_breach(seqs: list[int], prev: int | None, sentence: str) -> None:
    with pytest.raises(Breach) as found:
        model_at(5).take_events(seqs, prev)
    assert found.value.sentence == sentence


def test_events_in_order_move_the_cursor() -> None:
    model = model_at(5)
    model.take_events([6, 7], 5)
    model.take_cursor(7)
    model.take_events([8], 7)
    assert (model.seqs, model.cursor) == ([6, 7, 8], 8)


@pytest.mark.parametrize("prev", [4, 6])
def test_a_prev_after_which_an_event_came_or_that_was_not_told_is_a_breach(prev: int) -> None:
    with pytest.raises(Breach, match="E2"):
        model_at(5).take_events([7 if prev == 6 else 6], prev)


@pytest.mark.parametrize("cursor", [4, 6])
def test_a_cursor_that_moves_back_or_passes_an_event_is_a_breach(cursor: int) -> None:
    with pytest.raises(Breach, match="E4"):
        model_at(5).take_cursor(cursor)


def test_nothing_may_come_before_the_verdict() -> None:
    for take in (lambda model: model.take_events([1]), lambda model: model.take_cursor(1)):
        with pytest.raises(Breach, match="V1"):
            take(Model(StartAt(), known))
