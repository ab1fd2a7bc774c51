import msgspec
from policy_parts import budget, policy
from scenario import World, play

from costd.daemon.books.switches import engaged
from costd.engine.changes import Family

ANY = policy(budget("any", "100"))
ASK = "in=100 out=100"


def test_an_engaged_switch_denies_and_consumes_nothing():
    play(
        """
        kill k1 -> ok
        admit r1 5 -> deny:KILL_SWITCH by=k1 resets=never says=drill
        admit r2 class=review 5 -> deny:KILL_SWITCH
        show any -> none
        release k1 -> 1
        admit r3 5 -> allow
        """,
        ANY,
    )


def test_a_switch_stops_only_its_scope():
    play(
        """
        kill k1 team=a user=!root -> ok
        admit r1 team=a 5 -> deny:KILL_SWITCH
        admit r2 team=a user=root 5 -> allow
        admit r3 team=b 5 -> allow
        """,
        ANY,
    )


def test_critical_only_lets_critical_classes_pass():
    play(
        """
        kill k1 mode=critical_only -> ok
        admit r1 5 -> deny:KILL_SWITCH
        admit r2 class=review 5 -> allow
        extend r2 1 -> ok
        """,
        ANY,
    )


def test_a_switch_on_a_provider_leaves_the_others():
    play(
        f"""
        kill k1 provider=acme -> ok
        admit r1 {ASK} -> degrade:KILL_SWITCH model=titan by=k1
        kill k2 model=titan -> ok
        admit r2 {ASK} -> deny:KILL_SWITCH
        """,
        ANY,
    )


def test_a_switch_down_to_a_tier_leaves_the_cheaper_tiers():
    play(
        f"""
        kill k1 mode=max_tier:standard -> ok
        admit r1 {ASK} -> degrade:KILL_SWITCH model=mid
        admit r2 {ASK} model=acme/tiny -> allow
        admit r3 {ASK} model=acme/big tier=economy -> degrade:KILL_SWITCH asked=premium
        """,
        ANY,
    )


def test_a_switch_down_to_a_tier_that_is_gone_from_the_policy_stops_all():
    play("kill k1 mode=max_tier:gone -> ok / admit r1 5 tier=economy -> deny:KILL_SWITCH", ANY)
    play(
        "kill k1 mode=max_tier:gone -> ok / admit r1 5 -> deny:KILL_SWITCH",
        policy(budget("any"), tiers=()),
    )


def test_a_switch_releases_itself_by_the_steady_clock_whatever_the_wall_says():
    play(
        """
        kill k1 for=60 -> ok
        admit r1 5 -> deny:KILL_SWITCH resets=60
        wall 3600 -> ok
        admit r1 5 -> deny:KILL_SWITCH
        t=59 admit r1 5 -> deny:KILL_SWITCH
        t=60 admit r1 5 -> allow
        audit -> kill_engaged
        sweep -> 0
        audit -> kill_released
        kills -> none
        """,
        ANY,
    )


def test_the_sweeper_leaves_switches_that_are_still_engaged():
    play("kill k1 for=60 -> ok / t=59 sweep -> 0 / kills -> k1", ANY)


def test_switches_survive_a_restart():
    play(
        """
        kill k1 team=a -> ok
        kill k2 for=60 team=b -> ok
        restart -> ok
        kills -> k1,k2
        t=61 restart -> ok
        kills -> k1
        admit r1 team=a 5 -> deny:KILL_SWITCH
        """,
        ANY,
    )


def test_a_switch_stops_extensions_of_running_calls_in_its_scope():
    play(
        """
        admit r1 team=a 5 -> allow
        admit r2 team=b 5 -> allow
        kill k1 team=a -> ok
        extend r1 1 -> stop:KILL_SWITCH
        extend r1 in=1 out=1 -> stop:KILL_SWITCH reported=0.02
        extend r2 1 -> ok
        settle r1 5 -> ok
        """,
        ANY,
    )


def test_a_switch_down_to_a_tier_lets_calls_of_the_cheaper_tiers_go_on():
    play(
        """
        admit r1 5 -> allow
        admit r2 tier=economy 5 -> allow
        kill k1 mode=max_tier:standard -> ok
        extend r1 1 -> stop:KILL_SWITCH
        extend r2 1 -> ok
        """,
        ANY,
    )


def test_an_expired_switch_stops_no_extension():
    play("admit r1 5 -> allow / kill k1 for=60 -> ok / t=60 extend r1 1 -> ok", ANY)


def test_denials_under_a_switch_are_counted_in_the_audit():
    world = World(ANY)
    world.play("admit r1 5 -> allow / kill k1 -> ok")
    world.play("admit r1 5 -> deny:KILL_SWITCH / admit r2 5 -> deny:KILL_SWITCH")
    denied = [row for _, row in world.store.scan(Family.AUDIT) if row.action == "denied"]
    assert [(row.subject, row.count) for row in denied] == [("k1", 2)]


def test_engaged_switches_are_counted():
    world = play("kill k1 -> ok / kill k2 for=60 -> ok", ANY)
    assert engaged(world.ledger.kills, world.clock.now()) == 2
    world.clock.advance(60)
    assert engaged(world.ledger.kills, world.clock.now()) == 1


def test_a_switch_reads_like_its_scope():
    world = play("kill k1 team=a|b user=!root org=* -> ok", ANY)
    assert str(world.ledger.kills[0].scope) == "team=a|b, user!=root, org=*"
    assert str(msgspec.structs.replace(world.ledger.kills[0].scope, matches=())) == "everything"
