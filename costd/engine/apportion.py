"""How much of what is left one holder gets: much while much is left, single calls at last."""

_HALF = 2
"""Half of what is left is shared out at once, so that whoever asks next finds something."""


def apportion(
    room: int, *, holders_count: int, needed: int, wanted: int, whole: bool = False
) -> int | None:
    """Size one holder's share of what is left.

    Shape:   pure. `room` is what nobody holds, `needed` the least that helps, `wanted` the most
             that is of use; `holders_count` is how many share, the asker among them.
    Ensures: None if there is less than `needed`; else at least `needed` and at most `room`, and
             at most max(needed, wanted). Beyond `needed` at most an equal part of half of what is
             left, so that equal holders who ask in turn get shares that shrink slowly, and the
             last ones are single calls. Rounded down.
             With `whole`, everything: what is not to be shared lies with one holder.
    """
    if needed > room:
        return None
    if whole:
        return room
    share = room // (_HALF * max(1, holders_count))
    return max(needed, min(wanted, share))
