"""Long lists of ids are split, so that each part fits into one statement."""

from __future__ import annotations

from interlock.core.database.chunks import chunked


def test_ids_come_in_their_order_in_parts_that_fit_into_a_statement() -> None:
    ids = [str(number) for number in range(12_000)]
    parts = list(chunked(ids))
    assert [len(part) for part in parts] == [5_000, 5_000, 2_000]
    assert [each for part in parts for each in part] == ids
    assert list(chunked([])) == []
