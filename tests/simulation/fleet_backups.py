"""A database that is set back to a backup: what it has forgotten, daemons know."""

from fleet_world import World

from costd.engine.changes import Family

BACKUPS_COUNT = 4


class Backups(World):
    """Whoever backs the coordinators' database up, and restores it."""

    def __init__(self, seed, folder, parts=None):
        super().__init__(seed, folder, parts)
        self.backups = []

    def back_up(self):
        if self.database.is_up:
            self.backups = [*self.backups[1 - BACKUPS_COUNT :], self.database.state()]

    def restore(self):
        """Set the database back, with its coordinators stopped, or under their feet."""
        if not self.backups:
            return
        self.saw("databases restored")
        self.note("the database is set back to a backup")
        before = self.database.shares
        self.database.is_up = False
        if self.rng.random() < 0.5:
            for index, replica in enumerate(self.replicas):
                if replica is not None:
                    self.replica_died(index)
        # Those after it are of a past that is none any more; docs/reference/fleet.md advises so.
        self.backups = self.backups[: self.rng.randrange(len(self.backups)) + 1]
        self.database.set_back(self.backups[-1])
        self.usage_check.begin_again(self.database)
        self.unheard = dict.fromkeys(host.name for host in self.hosts)
        self.admitted.clear()
        hosts = {host.name: host for host in self.hosts}
        for (key, name), share in before.items():
            after = self.database.shares.get((key, name))
            self.truth.forgot(hosts[name], key, share, after, lease_of(hosts[name], key))


def lease_of(host, key):
    """What a daemon's books say that it may use of a counter."""
    counter = host.disk.get(Family.COUNTERS, key)
    return counter.lease.amount if counter is not None and counter.lease is not None else 0
