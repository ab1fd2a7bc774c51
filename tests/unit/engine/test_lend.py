from costd.engine import lend
from costd.model.lease import Stand


def test_what_a_daemon_explained_before_its_lease_was_reclaimed_explains_nothing_later():
    left = lend.reclaimed(Stand(amount=50, settled=20, overrun=10))
    back = Stand(amount=20, settled=20, reserved=36, overrun=10)
    assert lend.beyond(left, back) == 36


def test_what_a_daemon_explains_since_is_not_late():
    left = lend.reclaimed(Stand(amount=50, settled=20))
    assert lend.beyond(left, Stand(amount=20, settled=45, overrun=5, unadmitted=8)) == 12


def test_what_was_late_already_is_not_late_again():
    before = Stand(amount=20, settled=20, reserved=36)
    assert lend.beyond(before, Stand(amount=20, settled=58)) == 2


def test_what_was_taken_from_a_daemon_explains_nothing_that_it_used():
    left = Stand(amount=20, settled=20)
    assert lend.beyond(left, Stand(settled=20, reserved=36, lowered=56)) == 36
