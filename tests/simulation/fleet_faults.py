"""What may befall daemons, hosts, coordinators and their database."""

from fleet_clients import Clients

from costd.coordinator.store import Notice, Topic
from costd.model.time import NS_PER_S

FAR_NS = (-3_600 * NS_PER_S, -40 * NS_PER_S, 40 * NS_PER_S, 90_000 * NS_PER_S)


class Faults(Clients):
    """Everything that goes wrong beside the network."""

    # ---- daemons and their hosts ---------------------------------------------------------------

    def daemon_dies(self):
        """Kill -9 now, or a little later between two commits."""
        host = self.host()
        if host is None:
            return
        if self.rng.random() < 0.3:
            self.host_died(host)
        else:
            host.fuse.moments_left = self.rng.randrange(1, 14)

    def edge_of_tenure(self):
        """Part a daemon from all coordinators until its tenure should just be over, and ask it."""
        homes = [process.home for process in self.living()]
        if homes:
            self.spree()  # so that clients have something to draw from
        host = self.rng.choice(homes) if homes else self.host()
        if host is None or host.link is None or not self.runs(host):
            return
        self.saw("daemons asked at the end of their tenure")
        link = host.link
        link.stalled_until_ns = self.true_ns + 14 * NS_PER_S
        self.note(f"{host.name} is parted until its tenure ends")
        ends_ns = self.database.renewed_ns.get(host.name, 0) + self.span.tenure_ns
        for early_ns in (3_000_000_000, 1_000_000_000, 200_000_000, -20_000_000, -200_000_000):
            self.true_ns = max(self.true_ns, ends_ns - early_ns)
            self.wake()
            for _ in range(3):
                if self.runs(host):
                    self.ask(host, self.new_ask(cents=1), stages=({},))
            for process in self.living(host):
                self.draw_some(process, 1)
                self.talk(process)
                self.draw_some(process, 2)

    def disk_full(self):
        host = self.host()
        if host is not None:
            self.saw("commits refused")
            host.fuse.refuses = 1 if self.rng.random() < 0.5 else 20

    def daemon_stops(self):
        """Stopped for a while, as by SIGSTOP; it goes on as if nothing had happened."""
        host = self.host()
        if host is not None:
            self.saw("daemons stopped for a while")
            self.note(f"{host.name} is stopped")
            host.stopped_until_ns = self.true_ns + self.rng.choice((2, 12, 40)) * NS_PER_S

    def sync(self):
        for host in self.hosts:
            if self.rng.random() < 0.5:
                host.disk.sync()

    def power_fails(self):
        """Reboot a host: its clock begins anew, and what was not synced may be lost."""
        host = self.rng.choice(self.hosts)
        self.saw("hosts rebooted")
        if host.member is not None:
            self.host_died(host)
        self.clients_lose_power(host)
        host.boots += 1
        host.clock.reboot()
        lost = self.rng.choice((0, 1, 5, 50))
        lost = min(lost, host.disk.unsynced_count)
        self.note(f"{host.name} loses its power, and {lost} commits")
        host.disk.lose(lost)
        if lost:
            self.saw("hosts rebooted with commits lost")
            host.has_lost = True
            for call in self.truth.calls:
                call.is_lost |= call.host is host

    def stop_cleanly(self):
        """Stop a daemon in good order and reboot its host."""
        host = self.host()
        if host is None:
            return
        self.saw("hosts rebooted in good order")
        if host.link is not None:
            self.leave(host)
        if host.member is None:
            return
        self.note(f"{host.name} is rebooted in good order")
        host.member, host.was_stopped_cleanly = None, True
        self.end_streams(host)
        self.clients_lose_power(host)
        host.disk.sync()
        host.boots += 1
        host.clock.reboot()

    def step_clock(self):
        """Set a host's wall clock: within the skew that is allowed, or far off, or right again."""
        host = self.rng.choice(self.hosts)
        far = self.rng.random() < 0.3
        host.clock.off_ns = self.rng.choice(FAR_NS) if far else self.some_skew()
        self.saw("clocks set far off" if far else "clocks stepped")
        self.note(f"{host.name}'s clock is off by {host.clock.off_ns / 1e9:.1f} s now")

    # ---- coordinators and their database -------------------------------------------------------

    def coordinator_dies(self):
        live = [index for index, replica in enumerate(self.replicas) if replica is not None]
        if live:
            self.replica_died(self.rng.choice(live))

    def database_fails(self):
        self.saw("databases away")
        self.note("the database goes away")
        self.database.is_up = False

    def database_returns(self):
        self.note("the database is back")
        self.database.is_up = True
        for replica in self.replicas:
            if replica is not None:
                replica.notices.append(Notice(topic=Topic.ALL))

    def commit_unknown(self):
        self.database.answers_lost = 1

    def notices_lost(self):
        """Lose what replicas tell each other; their connection comes back and says so."""
        replica = self.replica()
        if replica is not None:
            self.saw("notices lost", len(replica.notices))
            replica.notices.clear()
            replica.notices.append(Notice(topic=Topic.ALL))

    def step_coordinator_clock(self):
        self.saw("coordinators' clocks stepped")
        self.rng.choice(self.sites)[1].off_ns = self.some_skew()

    def beat(self):
        for replica in self.replicas:
            if replica is not None:
                replica.beat()
