"""What fades in a fleet's simulation: daemons that are gone for a while, runs that are idle."""

from fleet_policies import compiled
from fleet_replicas import drive
from fleet_truth import name_of
from fleet_world import World

from costd.coordinator.fading import Fading, Kept
from costd.engine import keys
from costd.model.time import NS_PER_S


class Fades(World):
    """A coordinator's upkeep, which keeps what fades for seconds only."""

    def forget(self):
        """Forget daemons that hold nothing and runs that are over, and count who is left."""
        replica, rng = self.replica(), self.rng
        if replica is None or not self.database.is_up:
            return
        kept = Kept(
            daemons_ns=rng.choice((0, 5, 20)) * NS_PER_S,
            runs_ns=rng.choice((1, 5, 20)) * NS_PER_S,
            counted_ns=rng.choice((1, 10)) * NS_PER_S,
        )
        fading = Fading(self.database, lambda: replica.reception.published.rules, kept)
        shares = dict(self.database.shares)
        now_ns, before = replica.clock.now().wall_ns, dict(self.database.pools)
        gone = drive(fading.daemons(now_ns))
        self.faded.update(gone)
        drive(fading.counters(now_ns))
        over = before.keys() - self.database.pools.keys()
        self.database.over |= over
        self.database.changed -= over
        rules = compiled(self.policy).budgets
        for key in over:
            # It begins anew, whatever was used of it.
            self.truth.topped_up[key] += before[key].used
            if rules[keys.tag_of(key)].budget.budget_id != "run":
                self.problems.append(f"what was used of {name_of(key)} is forgotten")
        self.problems += [
            f"{name} may still use some of {name_of(key)}, which is forgotten"
            for (key, name), share in shares.items()
            if key in over and (share.stand.amount > share.stand.used or share.lost)
        ]
        self.saw("daemons forgotten", len(gone))
        self.saw("runs forgotten", len(over))
        self.note(f"{replica.name} forgets {gone} and {len(over)} runs")
