import pytest
from policy_parts import budget, policy, rate
from scenario import play

from costd.engine.rate import available, give_back, refill_ns, take
from costd.model.time import NS_PER_S

ANY = budget("any")


def test_a_burst_passes_at_once_and_the_rest_as_it_refills():
    play(
        """
        admit r1 1 -> allow
        admit r2 1 -> allow
        admit r3 1 -> deny:RATE_LIMITED by=r used=2 limit=2 resets=30
        t=29 admit r4 1 -> deny:RATE_LIMITED
        t=30 admit r5 1 -> allow
        """,
        policy(ANY, rate("r", 2)),
    )


def test_a_bucket_never_holds_more_than_its_burst():
    play(
        """
        admit r1 1 -> allow
        t=5d admit r2 1 -> allow
        admit r3 1 -> allow
        admit r4 1 -> deny:RATE_LIMITED
        """,
        policy(ANY, rate("r", 60, burst=2)),
    )


def test_a_refused_ask_takes_nothing_from_any_bucket():
    play(
        """
        admit r1 in=60 out=1 -> allow
        admit r2 in=60 out=1 -> deny:RATE_LIMITED by=tokens
        admit r3 in=40 out=1 -> allow
        admit r4 in=0 out=0 -> deny:RATE_LIMITED by=calls
        """,
        policy(ANY, rate("calls", 2), rate("tokens", 100, "prompt_tokens")),
    )


def test_buckets_count_prompt_output_and_all_tokens_and_money():
    play(
        """
        admit r1 in=11 out=1 -> deny:RATE_LIMITED by=in unit=prompt_tokens
        admit r2 in=1 out=11 -> deny:RATE_LIMITED by=out
        admit r3 in=9 out=9 -> deny:RATE_LIMITED by=both resets=never
        admit r4 in=8 out=7 -> deny:RATE_LIMITED by=money limit=0.14
        admit r5 in=7 out=7 -> allow
        """,
        policy(
            ANY,
            rate("in", 10, "prompt_tokens"),
            rate("out", 10, "output_tokens"),
            rate("both", 15, "tokens"),
            rate("money", 140_000_000, "nusd"),
        ),
    )


def test_one_bucket_for_each_value_of_a_label():
    play(
        """
        admit r1 user=ann 1 -> allow
        admit r2 user=ann 1 -> deny:RATE_LIMITED key=user=ann
        admit r3 user=bob 1 -> allow
        admit r4 1 -> allow
        admit r5 1 -> deny:RATE_LIMITED key=user=(none)
        """,
        policy(ANY, rate("r", 1, per=("user",))),
    )


def test_a_rate_may_refuse_those_who_lack_its_label():
    play(
        "admit r1 1 -> deny:LABEL_MISSING by=r / admit r2 user=ann 1 -> allow",
        policy(ANY, rate("r", 5, per=("user",), missing_deny=True)),
    )


def test_a_rate_in_tokens_needs_to_be_told_the_tokens():
    play(
        """
        admit r1 1 -> deny:ESTIMATE_MISSING by=r
        admit r2 1 in=1 -> deny:ESTIMATE_MISSING
        admit r3 1 in=0 out=0 -> allow
        """,
        policy(ANY, rate("r", 5, "tokens")),
    )


def test_a_settle_refunds_what_was_not_used():
    play(
        """
        admit r1 in=50 out=50 -> allow
        settle r1 in=20 out=10 -> ok
        admit r2 in=35 out=36 -> deny:RATE_LIMITED used=30
        admit r3 in=35 out=35 -> allow
        """,
        policy(ANY, rate("r", 100, "tokens", every_s=86_400)),
    )


@pytest.mark.parametrize("unit", ["prompt_tokens", "output_tokens", "nusd"])
def test_every_unit_is_refunded_by_what_was_measured(unit: str):
    amount = 2_000_000_000 if unit == "nusd" else 100
    play(
        """
        admit r1 in=100 out=100 -> allow
        settle r1 in=0 out=0 -> ok
        admit r2 in=100 out=100 -> allow
        settle r2 1 -> ok
        """,
        policy(ANY, rate("r", amount, unit)),
    )


def test_what_was_not_measured_is_not_refunded():
    play(
        """
        admit r1 in=10 out=10 -> allow
        settle r1 out=5 -> ok
        admit r2 in=1 out=0 -> deny:RATE_LIMITED by=in
        """,
        policy(ANY, rate("calls", 5), rate("in", 10, "prompt_tokens")),
    )


def test_a_settle_beyond_the_estimate_goes_into_debt():
    play(
        """
        admit r1 in=50 out=50 -> allow
        settle r1 in=150 out=150 -> ok
        t=119 admit r2 in=1 out=0 -> deny:RATE_LIMITED used=100
        t=121 admit r3 in=1 out=0 -> allow
        """,
        policy(ANY, rate("r", 100, "tokens")),
    )


def test_debt_grows_no_further_than_time_can_be_written():
    play(
        """
        admit r1 in=1 out=1 -> allow
        settle r1 1 in=900000000000 out=900000000000 -> ok
        t=9d admit r2 in=1 out=1 -> deny:RATE_LIMITED
        """,
        policy(ANY, rate("r", 2, "tokens", every_s=86_400)),
    )


def test_a_void_refunds_everything_and_no_more_than_the_burst():
    play(
        """
        admit r1 in=50 out=50 -> allow
        t=30 void r1 -> ok
        admit r2 in=50 out=50 -> allow
        admit r3 in=1 out=0 -> deny:RATE_LIMITED
        """,
        policy(ANY, rate("r", 100, "tokens")),
    )


def test_a_refund_of_a_bucket_that_is_full_and_forgotten_does_nothing():
    play(
        """
        admit r1 in=50 out=50 ttl=1h -> allow
        t=10m sweep -> 0
        void r1 -> ok
        admit r2 in=50 out=50 -> allow
        admit r3 in=1 out=0 -> deny:RATE_LIMITED
        """,
        policy(ANY, rate("r", 100, "tokens")),
    )


def test_debt_begins_now_where_the_bucket_is_full_and_forgotten():
    play(
        """
        admit r1 in=50 out=0 ttl=1h -> allow
        t=10m sweep -> 0
        settle r1 in=150 out=0 -> ok
        admit r2 in=1 out=0 -> deny:RATE_LIMITED
        """,
        policy(ANY, rate("r", 100, "tokens")),
    )


def test_a_rate_on_a_model_rejects_that_model_only():
    play(
        """
        admit r1 in=100 out=100 -> allow model=big
        admit r2 in=100 out=100 -> degrade:RATE_LIMITED model=titan by=r
        """,
        policy(ANY, rate("r", 1, match={"model": "big"})),
    )


def test_what_would_pass_a_rate_in_money_is_what_the_bucket_holds():
    play(
        """
        admit r1 3 -> allow
        admit r2 8 -> deny:RATE_LIMITED most=7
        admit r3 7 -> allow
        """,
        policy(ANY, rate("r", 10_000_000_000, "nusd", every_s=86_400)),
    )


def test_a_bucket_in_shadow_does_not_bound_what_would_pass():
    play(
        """
        admit r1 3 -> allow
        admit r2 8 -> deny:BUDGET_EXHAUSTED most=7
        """,
        policy(budget("b", "10"), rate("r", 4_000_000_000, "nusd", shadow=True)),
    )


def test_no_amount_would_pass_where_tokens_or_calls_are_what_is_short():
    play(
        """
        admit r1 in=10 out=10 -> allow
        admit r2 in=10 out=10 -> deny:BUDGET_EXHAUSTED by=b most=-
        """,
        policy(budget("b", "0.3"), budget("t", 30, unit="tokens")),
    )
    play(
        "admit r1 1 -> allow / admit r2 1 -> deny:BUDGET_EXHAUSTED most=-",
        policy(budget("b", "1.5"), budget("c", 1, unit="calls")),
    )
    play(
        "admit r1 1 -> allow / admit r2 1 -> deny:RATE_LIMITED most=-",
        policy(budget("b", "1.5"), rate("r", 1)),
    )


def test_nothing_is_offered_where_a_budget_in_tokens_is_full():
    play(
        """
        admit r1 1 in=10 out=10 -> allow
        admit r2 1 in=0 out=0 -> deny:BUDGET_EXHAUSTED by=b most=-
        """,
        policy(budget("b", "1.5"), budget("t", 20, unit="tokens")),
    )


def test_time_refills_only_by_the_steady_clock():
    play(
        """
        admit r1 1 -> allow
        wall 1h -> ok
        admit r2 1 -> deny:RATE_LIMITED
        """,
        policy(ANY, rate("r", 1)),
    )


def test_taking_rounds_up_and_giving_back_rounds_down():
    bucket = rate("r", 7, every_s=1e-8)  # 7 units in 10 ns
    assert refill_ns(1, 10, 7) == 2
    assert take(bucket, None, 1, 1000) == (True, 1002)
    assert give_back(1002, 1, 10, 7) == 1001
    assert available(bucket, None, 0) == 7
    assert available(bucket, 1001, 1000) == 6
    assert available(bucket, 5000, 1000) == 0


def test_asking_for_more_than_the_burst_never_fits():
    bucket = rate("r", 10, every_s=1)
    assert take(bucket, None, 10, 0)[0]
    assert not take(bucket, None, 11, 0)[0]
    assert take(bucket, 5 * NS_PER_S, 10, 20 * NS_PER_S) == (True, 21 * NS_PER_S)
