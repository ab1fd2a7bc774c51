"""What a caller may get wrong: a clear error each, nothing written, and the daemon serves on."""

import re
from pathlib import Path

import http2
import pytest
from desk import AMOUNT_MAX, Desk, ask, new_id
from google.protobuf.duration_pb2 import Duration

from costd.testing import DaemonProcess
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb

# Windows that never end, so that no midnight falls between two looks at the books.
POLICY = """\
version: 1
unmatched: deny
tiers:
  standard: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes:
  draft: {tier: standard, max_output_tokens: 1000}
  review: {critical: true, tier: standard}
budgets:
  - {id: all, window: total}
  - {id: per-user, match: {user: "*"}, per: user, window: total, limit: $5}
  - {id: words, match: {project: words}, window: total, limit: 5k tokens}
rates:
  - {id: user-rate, match: {user: "*"}, per: user, limit: 1000000 requests / minute}
expiry: {ttl: 1h, ttl_max: 2h}
"""
ADMIT = "/costd.v1.Admission/Admit"
MESSAGE_BYTES_MAX = 2_000_000


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    policy = tmp_path_factory.mktemp("bad-input") / "policy.yaml"
    policy.write_text(POLICY)
    flags = ("--message-bytes-max", str(MESSAGE_BYTES_MAX), "--labels-fixed", "org=acme")
    with DaemonProcess(policy, *flags) as daemon:
        desk = Desk(daemon)
        desk.hold(0.5, labels={"user": "ann"})
        desk.settle(desk.hold(0.25), 0.2)
        desk.held = desk.hold(0.1, model="gpt-4o", prompt_tokens=10, max_output_tokens=10)
        desk.before = desk.books()
        yield desk
        assert desk.settle(desk.hold(0.01), 0.01).state == pb.RESERVATION_STATE_SETTLED
        desk.close()


@pytest.fixture(autouse=True)
def serves_on_with_the_same_books(desk):
    yield
    assert desk.books() == desk.before
    assert desk.agents.Explain(ask(0.01)).decision.verdict == pb.VERDICT_ALLOW
    assert not [line for line in desk.daemon.lines if line.get("level") in {"error", None}]


def refused_without_a_trace(desk, rpc, request, code="INVALID_ARGUMENT"):
    refusal = desk.refusal(getattr(desk.agents, rpc), request)
    assert refusal.code == code, refusal
    return refusal.details


# ---- bytes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nHost: costd\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xab" * 500,
        bytes(range(256)) * 16,
        http2.PREFACE + b"\xff" * 64,
        http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0, b"\0"),
        http2.PREFACE
        + http2.frame(http2.SETTINGS, 0, 0, b"")
        + http2.frame(http2.HEADERS, http2.END_HEADERS, 1, b"\xff" * 100),
    ],
    ids=["http/1.1", "tls", "noise", "frames of noise", "half a setting", "noise for headers"],
)
def test_bytes_that_are_not_grpc_end_their_own_connection_only(desk, raw):
    http2.answer(desk.daemon.socket, raw)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\xff" * 100, "no such message"),
        (b"\x0a\xff\xff\xff\xff\x07short", "no such message"),
        (b"\x0a\x02\xff\xfe", "UTF-8"),
        (pb.AdmitRequest(ask_id=new_id()).SerializeToString()[:-1], "no such message"),
        (b"", "ask_id has 0 characters"),
        (b"\xf8\x07\x01" * 1000, "ask_id has 0 characters"),
    ],
    ids=["noise", "a length past the end", "no UTF-8", "cut short", "nothing", "unknown fields"],
)
def test_bytes_that_are_no_message_are_an_invalid_argument(desk, raw, said):
    refusal = desk.refusal(desk.channel.unary_unary(ADMIT), raw)
    assert refusal.code == "INVALID_ARGUMENT"
    assert said in refusal.details


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": {"user": "@@"}},
        {"labels": {"@@": "ann"}},
        {"model": "@@"},
        {"acceptable_models": ["@@"]},
        {"units": {"@@": 1}},
        {"override_grant": "@@"},
    ],
    ids=str,
)
def test_text_that_is_no_utf_8_is_refused_in_every_field(desk, fields):
    raw = ask(**fields).SerializeToString().replace(b"@@", b"\xc3\x28")
    refusal = desk.refusal(desk.channel.unary_unary(ADMIT), raw)
    assert refusal.code == "INVALID_ARGUMENT"
    assert "UTF-8" in refusal.details


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (http2.grpc_frame(ask(1).SerializeToString(), flag=1), b"Compression"),
        (http2.grpc_frame(b"", length=2**32 - 1), b"larger than max"),
        (http2.grpc_frame(ask(1).SerializeToString()[:-3]), b"no such message"),
    ],
    ids=["compressed it is not", "4 GiB announced", "cut short"],
)
def test_a_frame_that_lies_about_its_message_is_refused(desk, data, said):
    assert said in http2.answer(desk.daemon.socket, http2.request(ADMIT, data))


@pytest.mark.parametrize(
    "caller", [b"\xff\xfe", "é".encode(), b"a\0b", b"a\nb", b"\x1b[31m", b"\x7f", b"x" * 257]
)
def test_a_caller_s_name_that_metadata_may_not_hold_is_refused(desk, caller):
    data = http2.grpc_frame(ask(0.01).SerializeToString())
    call = http2.request(ADMIT, data, (b"costd-caller", caller))
    got = http2.answer(desk.daemon.socket, call)
    assert re.search(b"grpc-status\x013", got), got  # INVALID_ARGUMENT
    assert b"costd-caller" in got


@pytest.mark.parametrize(
    "method",
    [
        "/costd.v1.Admission/Guess",
        "/costd.v1.Nothing/Admit",
        "/Admit",
        "/costd.v1.Control/ListKills",
    ],
)
def test_a_method_that_is_not_served_is_unimplemented(desk, method):
    refusal = desk.refusal(desk.channel.unary_unary(method), ask(1).SerializeToString())
    assert refusal.code == "UNIMPLEMENTED"


def test_a_message_past_the_limit_is_refused_before_it_is_read(desk):
    too_long = ask(0.01, override_grant="x" * MESSAGE_BYTES_MAX)
    refusal = desk.refusal(desk.agents.Admit, too_long)
    assert refusal.code == "RESOURCE_EXHAUSTED"
    assert str(MESSAGE_BYTES_MAX) in refusal.details


def test_a_peer_that_sends_half_a_call_and_stays_silent_keeps_nobody_waiting(desk):
    whole = http2.request(ADMIT, http2.grpc_frame(ask(0.01).SerializeToString()))
    silent = [http2.opened(desk.daemon.socket, whole[: len(whole) - 20]) for _ in range(20)]
    assert desk.agents.Explain(ask(0.01), timeout=10).decision.verdict == pb.VERDICT_ALLOW
    for peer in silent:
        peer.close()


# ---- asks ---------------------------------------------------------------------------------------

HOLD_MAX = 10**15
HOLDS_AT_MOST = "one call can hold at most 1000000000000000 ($1,000,000.00)"
LONG, UNPRINTABLE = "x" * 257, "a\x1b[31mb"
BAD_ASKS = [
    ({"ask_id": ""}, "ask_id has 0 characters; it must have 16 to 128"),
    ({"ask_id": "x" * 15}, "ask_id has 15 characters; it must have 16 to 128"),
    ({"ask_id": "x" * 129}, "ask_id has 129 characters; it must have 16 to 128"),
    ({"ask_id": "0123456789\0abcdef"}, "ask_id has characters that cannot be printed"),
    ({}, "state estimated_cost_nusd, or prompt_tokens and max_output_tokens"),
    ({"estimated_cost_nusd": -1}, "estimated_cost_nusd is -1; it must not be negative"),
    ({"estimated_cost_nusd": -(2**63)}, f"estimated_cost_nusd is {-(2**63)}; it must not be"),
    ({"estimated_cost_nusd": AMOUNT_MAX}, f"is {AMOUNT_MAX} nano-USD; {HOLDS_AT_MOST}"),
    ({"estimated_cost_nusd": HOLD_MAX + 1}, HOLDS_AT_MOST),
    ({"prompt_tokens": -1}, "prompt_tokens is -1; it must lie in 0 … 1000000000000"),
    ({"prompt_tokens": AMOUNT_MAX}, f"prompt_tokens is {AMOUNT_MAX}; it must lie in 0 … 1"),
    ({"max_output_tokens": 10**12 + 1}, "max_output_tokens is 1000000000001; it must lie in"),
    ({"units": {"images": -5}}, "units[images] is -5; it must lie in"),
    ({"units": {"images": AMOUNT_MAX}}, f"units[images] is {AMOUNT_MAX}; it must lie in"),
    ({"units": {"dreams": 1}}, "unit 'dreams' is not in the catalogue"),
    ({"units": {"": 1}}, "unit '' is not in the catalogue"),
    ({"units": {LONG: 1}}, "units has more than 256 characters"),
    ({"units": {f"unit-{n}": n for n in range(10_000)}}, "is not in the catalogue"),
    ({"task_class": ""}, "task_class is empty and the policy names no default_task_class"),
    ({"task_class": "poetry"}, "task_class 'poetry' is not in the policy; it knows: draft, review"),
    ({"task_class": LONG}, "task_class has more than 256 characters"),
    ({"task_class": UNPRINTABLE}, "task_class has characters that cannot be printed"),
    ({"provider": LONG}, "provider has more than 256 characters"),
    ({"model": "x" * 1_000_000}, "model has more than 256 characters"),
    ({"model": "gpt\x1fuser=root"}, "model has characters that cannot be printed"),
    ({"tier": "golden"}, "tier 'golden' is not in the policy; it has: standard, economy"),
    ({"cost_kind": LONG}, "cost_kind has more than 256 characters"),
    ({"acceptable_models": ["m"] * 10_000}, "acceptable_models has more than 64 entries"),
    ({"acceptable_models": [LONG]}, "acceptable_models has more than 256 characters"),
    ({"ttl": Duration(seconds=-1)}, "ttl must lie between 0 and 315360000 seconds"),
    ({"ttl": Duration(nanos=-1)}, "ttl must lie between 0 and 315360000 seconds"),
    ({"ttl": Duration(seconds=2**62)}, "ttl must lie between 0 and 315360000 seconds"),
    ({"ttl": Duration(nanos=2**31 - 1)}, "ttl must lie between 0 and 315360000 seconds"),
    ({"labels": {f"k{n}": "v" for n in range(65)}}, "labels has 65 entries; at most 64"),
    ({"labels": {f"k{n}": "v" for n in range(10_000)}}, "labels has 10000 entries; at most 64"),
    ({"labels": {"": "v"}}, "labels: key '' must have 1 to 64 characters"),
    ({"labels": {"k" * 65: "v"}}, "must have 1 to 64 characters"),
    ({"labels": {"user": "v" * 257}}, "labels[user] has more than 256 characters"),
    ({"labels": {"user": "v" * 1_000_000}}, "labels[user] has more than 256 characters"),
    *(
        ({"labels": {key: "x"}}, f"labels[{key}]: {key} has a field of its own; set that instead")
        for key in ("provider", "model", "tier", "task_class")
    ),
    *(
        ({"labels": {"user": text}}, "labels['user'] has characters that cannot be printed")
        for text in ("a\0", "a\nb", UNPRINTABLE, "a\x1fuser=bob", "\u202eann", "a\u200b", "\x85")
    ),
    ({"labels": {"us\x1ber": "ann"}}, "has characters that cannot be printed"),
]


@pytest.mark.parametrize(("fields", "said"), BAD_ASKS, ids=[said[:60] for _, said in BAD_ASKS])
@pytest.mark.parametrize("rpc", ["Admit", "Explain"])
def test_an_ask_that_breaks_a_rule_is_told_the_field_and_the_rule(desk, rpc, fields, said):
    details = refused_without_a_trace(desk, rpc, ask(**fields))
    assert said in details
    assert len(details) < 2_100


@pytest.mark.parametrize("rpc", ["Admit", "Explain"])
def test_a_critical_class_is_refused_to_callers_who_may_not_claim_it(desk, rpc):
    request = ask(0.01, task_class="review")
    details = refused_without_a_trace(desk, rpc, request, "PERMISSION_DENIED")
    assert "'review' is critical" in details
    assert "`claims`" in details


def test_a_record_of_a_critical_class_is_refused_to_callers_who_may_not_claim_it(desk):
    refusal = desk.refusal(desk.record, 0.01, task_class="review")
    assert refusal.code == "PERMISSION_DENIED"


def test_a_label_that_the_daemon_fixes_cannot_be_claimed_to_be_another(desk):
    request = ask(0.01, labels={"org": "globex"})
    details = refused_without_a_trace(desk, "Admit", request, "PERMISSION_DENIED")
    assert "labels[org] is fixed to 'acme'" in details
    assert "'globex'" in details
    refusal = desk.refusal(desk.record, 0.01, labels={"org": "globex"})
    assert refusal.code == "PERMISSION_DENIED"


def test_the_largest_amount_is_answered_and_holds_nothing_it_cannot(desk):
    decision = desk.agents.Admit(ask(estimated_cost_nusd=HOLD_MAX, labels={"user": "ann"}))
    assert decision.verdict == pb.VERDICT_DENY
    assert decision.reason == pb.REASON_BUDGET_EXHAUSTED


def test_a_ttl_past_the_policy_s_longest_is_cut_to_it(fresh_daemon):
    desk = Desk(fresh_daemon(POLICY).start())
    decision = desk.admit(0.01, ttl=Duration(seconds=315_360_000))
    now_ns = desk.status().now_ns
    assert 0 <= now_ns + 2 * 3600 * 10**9 - decision.expires_ns < 60 * 10**9
    desk.close()


def test_markup_is_text_like_any_other_and_comes_back_as_it_was(fresh_daemon):
    desk = Desk(fresh_daemon(POLICY).start())
    for text in ("[red]ann[/]", "<script>alert(1)</script>", "'; DROP TABLE", "𝔘𝔫𝔦", "{0}%s$(id)`"):
        held = desk.hold(0.01, labels={"user": text, "feature": text})
        assert desk.reservation(held).labels["feature"] == text
        assert desk.budget("per-user", f"user={text}").reserved == 10_000_000
    desk.close()


@pytest.mark.parametrize(
    "grant", ["x" * 1_000_000, "é" * 1000, "a.b.c", "." * 5000, "eyJhbGciOiJub25lIn0.e30."]
)
def test_a_grant_that_is_none_changes_nothing_and_is_named_malformed(desk, grant):
    decision = desk.admit(6, labels={"user": "ann"}, override_grant=grant)
    assert decision.verdict == pb.VERDICT_DENY
    assert decision.grant_refusal == pb.GRANT_REFUSAL_MALFORMED


# ---- closing, extending, recording --------------------------------------------------------------

BAD_USAGE = [
    ({"prompt_tokens": -1}, "usage.prompt_tokens is -1"),
    (
        {"prompt_tokens": 10, "output_tokens": -(2**63)},
        "usage.output_tokens is -9223372036854775808",
    ),
    ({"prompt_tokens": 1, "cached_tokens": 2}, "usage.cached_tokens + cache_write_tokens exceed"),
    ({"prompt_tokens": 1, "cache_write_tokens": 2}, "exceed prompt_tokens"),
    ({"prompt_tokens": 1, "output_tokens": 1, "reasoning_tokens": 2}, "usage.reasoning_tokens"),
    ({"prompt_tokens": 1, "units": {"dreams": 1}}, "unit 'dreams' is not in the catalogue"),
    ({"prompt_tokens": 1, "units": {"web_searches": -1}}, "usage.units[web_searches] is -1"),
]
BAD_SETTLES = [
    ({}, "send usage with at least one count, or cost_nusd"),
    ({"usage": pb.Usage()}, "send usage with at least one count, or cost_nusd"),
    ({"cost_nusd": -1}, "cost_nusd is -1; it must lie in 0 …"),
    ({"cost_nusd": -(2**63)}, "cost_nusd is -9223372036854775808; it must lie in 0 …"),
    ({"usage": pb.Usage(prompt_tokens=AMOUNT_MAX)}, "usage costs"),
    ({"cost_nusd": AMOUNT_MAX}, f"it would pass {AMOUNT_MAX}"),
    ({"cost_nusd": 1, "outcome": 99}, "outcome 99 is not one of Outcome's values"),
    ({"cost_nusd": 1, "outcome": -1}, "outcome -1 is not one of Outcome's values"),
    ({"cost_nusd": 1, "retry_count": -1}, "retry_count is -1; it must not be negative"),
    ({"cost_nusd": 1, "duration": Duration(seconds=-1)}, "duration must lie between 0 and"),
    ({"cost_nusd": 1, "model": "x" * 1_000_000}, "model has more than 256 characters"),
    ({"cost_nusd": 1, "provider": UNPRINTABLE}, "provider has characters that cannot be printed"),
    *(({"usage": pb.Usage(**usage)}, said) for usage, said in BAD_USAGE),
    *(({"usage": pb.Usage(**usage), "cost_nusd": 1}, said) for usage, said in BAD_USAGE),
]
BAD_EXTENSIONS = [
    ({"additional_cost_nusd": -1}, "additional amounts and ttl must not be negative"),
    ({"additional_cost_nusd": HOLD_MAX}, HOLDS_AT_MOST),
    ({"additional_output_tokens": -1}, "additional amounts and ttl must not be negative"),
    ({"additional_output_tokens": AMOUNT_MAX}, HOLDS_AT_MOST),
    ({"ttl": Duration(seconds=-5)}, "ttl must lie between 0 and"),
    ({"usage_so_far": pb.Usage()}, "send usage with at least one count"),
    ({"usage_so_far": pb.Usage(prompt_tokens=AMOUNT_MAX)}, "usage costs"),
    *(({"usage_so_far": pb.Usage(**usage)}, said) for usage, said in BAD_USAGE),
]
BAD_RECORDS = [
    ({}, "send usage with at least one count, or cost_nusd"),
    ({"record_id": "short", "cost_nusd": 1}, "record_id has 5 characters; it must have 16 to 128"),
    ({"record_id": "0123456789\nabcdef", "cost_nusd": 1}, "record_id has characters that cannot"),
    ({"cost_nusd": 1, "happened_ns": -1}, "happened_ns must not be negative; 0 means now"),
    ({"cost_nusd": 1, "task_class": "poetry"}, "task_class 'poetry' is not in the policy"),
    ({"cost_nusd": 1, "labels": {"user": "a\0"}}, "labels['user'] has characters"),
    ({"cost_nusd": 1, "labels": {f"k{n}": "" for n in range(10_000)}}, "labels has 10000 entries"),
    ({"usage": pb.Usage(prompt_tokens=1), "model": "unheard-of"}, "nobody knows this model's"),
    *((fields, said) for fields, said in BAD_SETTLES if "holds" not in said and fields),
]
BAD_IDS = ["", "zz", "0" * 31, "0" * 33, "0" * 10_000, "00 " * 16, "é" * 32, "\0" * 32]


def ids(table):
    return [f"{number}-{said[:40]}" for number, (_, said) in enumerate(table)]


@pytest.mark.parametrize(("fields", "said"), BAD_SETTLES, ids=ids(BAD_SETTLES))
def test_a_settle_that_breaks_a_rule_is_told_the_field_and_holds_on(desk, fields, said):
    request = pb.SettleRequest(reservation_id=desk.held, **fields)
    assert said in refused_without_a_trace(desk, "Settle", request)


@pytest.mark.parametrize(("fields", "said"), BAD_EXTENSIONS, ids=ids(BAD_EXTENSIONS))
def test_an_extension_that_breaks_a_rule_is_told_the_field(desk, fields, said):
    request = pb.ExtendRequest(reservation_id=desk.held, **fields)
    assert said in refused_without_a_trace(desk, "Extend", request)


@pytest.mark.parametrize(("fields", "said"), BAD_RECORDS, ids=ids(BAD_RECORDS))
def test_a_record_that_breaks_a_rule_is_told_the_field(desk, fields, said):
    sound = {"record_id": new_id(), "task_class": "draft", "model": "gpt-4o"}
    request = pb.RecordRequest(**(sound | fields))
    assert said in refused_without_a_trace(desk, "Record", request)


@pytest.mark.parametrize("identity", BAD_IDS, ids=range(len(BAD_IDS)))
@pytest.mark.parametrize(
    ("rpc", "request_type"),
    [("Settle", pb.SettleRequest), ("Void", pb.VoidRequest), ("Extend", pb.ExtendRequest)],
)
def test_an_id_that_is_none_is_an_invalid_argument(desk, rpc, request_type, identity):
    fields = {"cost_nusd": 1} if rpc == "Settle" else {}
    request = request_type(reservation_id=identity, **fields)
    details = refused_without_a_trace(desk, rpc, request)
    assert details.startswith("reservation_id ")
    assert details.endswith("is not one: 32 hex digits")


@pytest.mark.parametrize(
    ("rpc", "request_type"),
    [("Settle", pb.SettleRequest), ("Void", pb.VoidRequest), ("Extend", pb.ExtendRequest)],
)
def test_a_reservation_that_nobody_made_is_not_found(desk, rpc, request_type):
    fields = {"cost_nusd": 1} if rpc == "Settle" else {}
    request = request_type(reservation_id="0" * 32, **fields)
    details = refused_without_a_trace(desk, rpc, request, "NOT_FOUND")
    assert "no reservation 00000000000000000000000000000000" in details


def test_two_records_of_the_largest_cost_leave_every_list_readable(fresh_daemon):
    desk = Desk(fresh_daemon(POLICY.replace("unmatched: deny", "unmatched: allow")).start())
    limitless = "  - {id: all, window: total}\n"
    desk.daemon.policy.write_text(desk.daemon.policy.read_text().replace(limitless, ""))
    desk.reload()
    for _ in range(2):
        desk.record(cost_nusd=AMOUNT_MAX, happened_ns=AMOUNT_MAX)
    for _ in range(2):
        assert desk.agents.Admit(ask(estimated_cost_nusd=HOLD_MAX)).hold_nusd == HOLD_MAX
    desk.books()
    grouped = desk.operators.ListUsage(cpb.ListUsageRequest(group_by=["model"])).groups
    assert [group.cost_nusd for group in grouped] == [AMOUNT_MAX]
    desk.restart()
    assert desk.status().reserved_nusd == 2 * HOLD_MAX
    desk.close()


# ---- operators ----------------------------------------------------------------------------------

BAD_KILLS = [
    ({"reason": ""}, "reason is empty"),
    ({"reason": "x" * 100_000}, "reason has more than 1024 characters"),
    ({"reason": UNPRINTABLE}, "reason has characters that cannot be printed"),
    ({"kill_id": "x" * 2_000}, "kill_id has more than 1024 characters"),
    ({"kill_id": "a\nb"}, "kill_id has characters that cannot be printed"),
    ({"actor": UNPRINTABLE}, "actor has characters that cannot be printed"),
    ({"mode": "gently"}, "mode 'gently' is not one of deny_all, critical_only, max_tier"),
    ({"mode": "max_tier", "max_tier": "golden"}, "max_tier 'golden' is not in the policy"),
    ({"scope": {"": "x"}}, "scope: key '' must have 1 to 64 characters"),
    ({"scope": {"user": "a\n"}}, "scope['user'] has characters that cannot be printed"),
    ({"scope": {"model": "x" * 300}}, "scope[model] has more than 256 characters"),
    ({"scope": {f"k{n}": "v" for n in range(1000)}}, "scope has 1000 entries; at most 64"),
    ({"release_after": Duration(seconds=-1)}, "release_after must lie between 0 and"),
]


@pytest.mark.parametrize(("fields", "said"), BAD_KILLS, ids=ids(BAD_KILLS))
def test_a_kill_switch_that_breaks_a_rule_is_told_the_field_and_stops_nobody(desk, fields, said):
    refusal = desk.refusal(desk.engage, **fields)
    assert refusal.code == "INVALID_ARGUMENT"
    assert said in refusal.details


def test_what_operators_look_for_and_is_not_there_is_not_found(desk):
    assert desk.refusal(desk.release, "nobody").code == "NOT_FOUND"
    request = cpb.ListBudgetsRequest(budget="nothing")
    assert desk.refusal(desk.operators.ListBudgets, request).code == "NOT_FOUND"


# ---- memory -------------------------------------------------------------------------------------


def test_a_flood_of_bad_asks_with_ever_new_names_leaves_no_memory_behind(desk):
    def flood(count):
        for number in range(count):
            name = f"{number}-{new_id()}" * 5
            for fields in (
                {"model": name, "provider": name, "labels": {"user": name}},
                {"task_class": name},
                {"model": name * 50},
                {"acceptable_models": [f"{name}-{n}" for n in range(60)]},
                {"override_grant": name * 500, "labels": {"user": "ann"}},
            ):
                call = desk.agents.Admit.future(ask(6, **fields))
                call.exception()

    flood(100)
    before = resident_kib(desk.daemon.pid)
    flood(500)
    assert resident_kib(desk.daemon.pid) - before < 20_000


def resident_kib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])
