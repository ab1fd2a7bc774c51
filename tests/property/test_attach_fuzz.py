"""Whatever a client says on its stream, the daemon answers in words and the books add up."""

import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "daemon"))

from allowance_world import HEAD, Process, World

from costd.errors import InvalidAsk
from costd.model.money import AMOUNT_MAX
from costd.wire.pb import admission_pb2 as pb

POLICY = HEAD + (
    "budgets:\n  - {id: all, per: user, window: total, limit: $100, reserve: 10%}\n"
    "  - {id: tokens, window: hour, limit: 10M tokens}\n"
    "  - {id: tracked, window: run}\n"
    "  - {id: calls, window: day, limit: 5000 calls}\n"
    'rates:\n  - {id: r, limit: "6000 requests per minute"}\n'
)

edges = [0, 1, -1, 3_500_000, 10**15, AMOUNT_MAX, -AMOUNT_MAX - 1]
amounts = st.sampled_from(edges) | st.integers(-5, 20_000_000)
few = st.sampled_from([-(2**31), -1, 0, 1, 2, 7, 2**31 - 1])
texts = st.sampled_from(["", "user", "../daemon", "a\nb", "x" * 300, "f" * 32, "openai", "gpt-4o"])
labels = st.dictionaries(texts, texts, max_size=3)
ids = st.integers(0, 3) | texts  # of an allowance that is out, or no id at all


def optional(strategy):
    return st.none() | strategy


usages = st.builds(
    pb.Usage,
    prompt_tokens=optional(amounts),
    cached_tokens=optional(amounts),
    output_tokens=optional(amounts),
    units=st.dictionaries(texts, amounts, max_size=2),
)
settlements = st.fixed_dictionaries(
    {"allowance": ids, "ask_id": texts | st.just("call-00000000000000")},
    optional={
        "hold_nusd": amounts,
        "tokens_count": amounts,
        "voided": st.booleans(),
        "usage": usages,
        "cost_nusd": amounts,
        "outcome": few,
        "retry_count": few,
        "provider": texts,
        "model": texts,
        "cost_kind": texts,
        "labels_index": few,
        "prompt_tokens": amounts,
        "max_output_tokens": amounts,
    },
)
drawn = st.fixed_dictionaries(
    {"allowance": ids},
    optional={"calls_count": amounts, "amount_nusd": amounts, "tokens_count": amounts},
)
reports = st.fixed_dictionaries(
    {
        "sequence": st.sampled_from([0, 0, 0, 0, -1, 1, 5]),
        "drawn": st.lists(drawn, max_size=4),
        "settlements": st.lists(settlements, max_size=6),
        "returned": st.lists(ids, max_size=3),
        "labels": st.lists(labels, max_size=2),
    }
)
requests = st.builds(
    pb.AllowanceRequest,
    request_id=texts,
    calls_count=amounts,
    typical=st.builds(
        pb.AdmitRequest,
        task_class=st.sampled_from(["", "draft", "review", "x"]),
        model=st.sampled_from(["", "gpt-4o", "gpt-4o", "gpt-4o-mini", "unknown"]),
        labels=labels,
        prompt_tokens=optional(amounts),
        max_output_tokens=optional(amounts),
        estimated_cost_nusd=optional(amounts),
        acceptable_models=st.lists(texts, max_size=2),
    ),
)
moves = st.lists(
    st.tuples(st.just("request"), requests)
    | st.tuples(st.just("report"), reports)
    | st.tuples(st.just("wait"), st.sampled_from([0.1, 3, 8, 700, 4_000]))
    | st.tuples(st.just("scribble"), st.tuples(st.integers(0, 3), amounts, amounts))
    | st.tuples(st.just("swap"), st.integers(0, 1)),
    max_size=25,
)


class Hostile(Process):
    """A client that says anything, about allowances it was granted and others."""

    def __init__(self, world):
        super().__init__(world, "mallory")
        self.known = []

    def id_of(self, number):
        if isinstance(number, str):
            return number
        return self.known[number].allowance_id if number < len(self.known) else "0" * 32

    def say(self, kind, what):
        if self.world.desk.attached.get(self.session) is not self.connection:
            self.connection = self.world.desk.attach("mallory", self.heard.append)
            self.connection.receive(pb.ClientMessage(hello=self._hello))
        ended_by = ""
        try:
            self.connection.receive(pb.ClientMessage(**{kind: what}))
        except InvalidAsk as error:
            ended_by = str(error)
        if ended_by:  # nothing but a gap between reports ends a stream
            assert "send those between" in ended_by
            self.connection.close()
        for message in self.heard:
            if message.WhichOneof("message") == "grant" and message.grant.HasField("allowance"):
                self.known.append(message.grant.allowance)
        self.heard.clear()

    def report_of(self, said):
        booked = self.world.desk.books.sessions
        last = booked[self.session].report_sequence if self.session in booked else 0
        return pb.Report(
            sequence=last + 1 + said["sequence"],
            drawn=[
                pb.Drawn(allowance_id=self.id_of(each["allowance"]), **_rest(each))
                for each in said["drawn"]
            ],
            settlements=[
                pb.DrawSettlement(allowance_id=self.id_of(each["allowance"]), **_rest(each))
                for each in said["settlements"]
            ],
            returned_allowance_ids=map(self.id_of, said["returned"]),
            labels=[pb.Labels(labels=each) for each in said["labels"]],
        )


def _rest(said):
    return {name: value for name, value in said.items() if name != "allowance"}


@settings(deadline=None, max_examples=80)
@given(moves)
def test_whatever_a_client_says_the_books_add_up(said):
    world = World(POLICY)
    client = Hostile(world)
    for kind, what in said:
        if kind == "request":
            client.say("request", what)
        elif kind == "report":
            client.say("report", client.report_of(what))
        elif kind == "wait":
            world.advance(what)
        elif kind == "swap":
            world.swap(POLICY + "# again\n" * what)
        elif what[0] < len(client.known):
            slot = client.known[what[0]]
            page = world.desk.books.sessions[client.session].page
            if slot.slot >= 0 and page and (page, slot.slot) in world.pages.slots:
                client.draw(slot, what[1], amount=what[2], tokens=0)
        world.check()
    world.advance(5_000)
    world.check()
    assert world.desk.books.out == {}
    assert world.ledger.totals.open_count == 0
    assert world.ledger.totals.reserved_nusd == 0
    assert all(counter.reserved == 0 for counter in world.counters().values())
