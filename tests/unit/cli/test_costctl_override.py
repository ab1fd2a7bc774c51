"""override keygen, issue, inspect: a grant from the key file to a daemon that believes it."""

import base64
import json
import re
import stat

import pytest

from costd.grants import load_private_key, verify
from costd.model.grant import Grant
from costd.model.policy import GrantKey
from costd.wire.pb import control_pb2 as pb

POLICY = """\
version: 1
task_classes:
  security_review: {critical: true, min_tier: premium}
tiers:
  premium: {models: [openai/gpt-5]}
grant_keys:
  - id: oncall
    public_key: %s
"""


@pytest.fixture
def key(costctl, tmp_path):
    """A new key, its public half in a policy."""
    made = costctl("override", "keygen", tmp_path / "oncall.pem", "--json").json()
    (tmp_path / "policy.yaml").write_text(POLICY % made["public_key"])
    return made


@pytest.fixture
def issue(costctl, tmp_path, key):
    def issue(*options, audience=("--audience", "host-1")):
        return costctl(
            "override", "issue", "--key", tmp_path / "oncall.pem", "--amount", "$5",
            "--class", "security_review", "--reason", "release is blocked", "--subject", "PR 41",
            "--valid-for", "2h", *audience, *options,
        )  # fmt: skip

    return issue


def test_keygen_writes_a_private_key_that_only_its_owner_reads(costctl, tmp_path):
    made = costctl("override", "keygen", tmp_path / "oncall.pem")
    assert made.code == 0
    file = tmp_path / "oncall.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    load_private_key(file.read_text())
    assert "PRIVATE KEY" not in made.out
    assert re.search(r"grant_keys:\n  - id: oncall\n    public_key: [\w-]{43}\n", made.out)


def test_keygen_never_overwrites_a_key(costctl, tmp_path, key):
    before = (tmp_path / "oncall.pem").read_text()
    again = costctl("override", "keygen", tmp_path / "oncall.pem")
    assert (again.code, (tmp_path / "oncall.pem").read_text()) == (1, before)
    assert "exists already" in again.err
    nowhere = costctl("override", "keygen", tmp_path / "no" / "key.pem")
    assert nowhere.code == 1
    assert "cannot be written: No such file" in nowhere.err


def test_issue_prints_a_token_that_a_daemon_believes(issue, key):
    issued = issue(
        "--scope", "project=api", "--scope", "team=core|infra", "--scope", "user=*",
        "--uses", "3", "--passes-kill", "--issuer", "ann", "--id", "g-1",
        "--not-before", "2026-03-01T00:00:00Z",
    )  # fmt: skip
    assert issued.code == 0
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", issued.out)
    keys = (GrantKey(key_id="oncall", public_key=key["public_key"]),)
    start_ns = 1_772_323_200_000_000_000
    grant = verify(issued.out.strip(), keys=keys, audience="host-1", wall_ns=start_ns)
    assert isinstance(grant, Grant)
    assert str(grant.scope) == "project=api, team=core|infra, user=*"
    assert (grant.grant_id, grant.issuer, grant.subject) == ("g-1", "ann", "PR 41")
    assert (grant.amount_nusd, grant.uses_max_count, grant.passes_kill) == (5 * 10**9, 3, True)
    assert grant.expires_ns == start_ns + 7_200 * 10**9
    assert grant.task_classes == {"security_review"}


def test_a_grant_for_a_fleet_names_nobody_who_may_go_on_alone(costctl, issue, tmp_path):
    token = issue("--everything", "--fleet", audience=()).out.strip()
    policy = ("--policy", tmp_path / "policy.yaml")
    alone = costctl("override", "inspect", token, *policy, "--json")
    assert (alone.code, alone.json()["refusal"]) == (3, "WRONG_AUDIENCE")
    lent = costctl("override", "inspect", token, *policy, "--fleet", "--json")
    assert (lent.json()["verified"], lent.json()["claims"]["aud"]) == (True, [])


def test_issue_in_json_carries_the_claims(issue):
    document = issue("--everything", "--json").json()
    assert document["claims"]["scope"] == {}
    assert document["claims"]["aud"] == ["host-1"]
    assert document["token"].count(".") == 2


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "give --scope KEY=VALUE, or --everything"),
        (("--everything", "--fleet"), 2, "give --audience DAEMON, or --fleet"),
        (("--everything", "--scope", "team=a"), 2, "give --scope KEY=VALUE, or --everything"),
        (("--scope", "team"), 2, "not key=value"),
        (("--everything", "--uses", "0"), 2, "--uses"),
        (("--everything", "--amount", "0"), 1, "amount_nusd is 0"),
        (("--everything", "--subject", ""), 1, "sub must be"),
        (("--scope", "team=a|"), 1, "scope[team] must name"),
        (("--everything", "--key", "/no/such.pem"), 1, "/no/such.pem cannot be read"),
        (("--everything", "--key", "/dev/null"), 1, "unencrypted private key"),
    ],
)
def test_a_grant_that_is_not_sound_is_not_signed(issue, options, code, said):
    refused = issue(*options)
    assert refused.code == code
    assert refused.out == ""
    assert said in " ".join(refused.err.replace("│", " ").split())


def test_inspect_says_that_nobody_vouches_for_the_claims(costctl, issue, tmp_path):
    token = issue("--scope", "project=api").out
    (tmp_path / "grant.jwt").write_text(token)
    for seen in (
        costctl("override", "inspect", token.strip()),
        costctl("override", "inspect", f"@{tmp_path}/grant.jwt"),
        costctl("override", "inspect", "-", text=token),
    ):
        assert seen.code == 0
        assert seen.out.startswith("NOT VERIFIED: anybody may have written this")
        assert re.search(r"scope +project=api", seen.out)
        assert re.search(r"amount_nusd +\$5\.00", seen.out)
        assert re.search(r"exp +.* \(in 1h 59m\)|exp +.* \(in 2h\)", seen.out)


def test_inspect_verifies_with_a_policys_keys(costctl, issue, tmp_path):
    token = issue("--everything").out.strip()
    policy = ("--policy", tmp_path / "policy.yaml")
    verified = costctl("override", "inspect", token, *policy, "--audience", "host-1")
    assert (verified.code, verified.out.splitlines()[0]) == (0, "VERIFIED")
    elsewhere = costctl("override", "inspect", token, *policy, "--audience", "host-2", "--json")
    assert elsewhere.code == 3
    assert elsewhere.json()["verified"] is False
    assert elsewhere.json()["refusal"] == "WRONG_AUDIENCE"
    tampered = token[:-1] + ("A" if token[-1] != "A" else "Q")
    refused = costctl("override", "inspect", tampered, *policy, "--audience", "host-1")
    assert refused.code == 1 or refused.out.startswith("REFUSED: BAD_SIGNATURE")
    assert costctl("override", "inspect", token, "--json").json()["verified"] is None


def test_inspect_shows_hostile_claims_as_text(costctl, key):
    def segment(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    hostile = {"sub": "[red]x[/]\x1b[2J", "exp": "never", "amount_nusd": "much", "scope": [1, {}]}
    token = f"{segment({'alg': 'EdDSA', 'kid': 7})}.{segment(hostile)}.AA"
    seen = costctl("override", "inspect", token)
    if seen.code == 0:
        assert r"[red]x[/]\x1b[2J" in seen.out
    assert "\x1b" not in seen.out + seen.err
    assert costctl("override", "inspect", "no token").code == 1


def test_list_shows_what_was_used_in_a_fleet_and_by_whom(costctl, daemon):
    daemon.answers["ListGrants"] = pb.ListGrantsResponse(
        grants=[
            pb.GrantStatus(
                grant_id="g-1", uses_count=4, uses_max_count=5, used_nusd=10**9,
                amount_nusd=5 * 10**9, expires_ns=1_772_323_200 * 10**9,
                holders=[
                    pb.GrantHolder(daemon="host-1", uses_count=3, unleased_count=2),
                    pb.GrantHolder(daemon="host-2", uses_count=1),
                    pb.GrantHolder(daemon="host-3", unused_nusd=7),
                ],
            )
        ]
    )  # fmt: skip
    seen = costctl("override", "list", "--expired", "--utc")
    assert seen.code == 0
    assert daemon.last("ListGrants").include_expired
    for words in ("g-1", "4 of 5", "$1.00 of $5.00", "host-1 3 (2 offline), host-2 1"):
        assert words in seen.out
    assert "host-3" not in seen.out
    assert costctl("override", "list", "--json").json()["grants"][0]["grant_id"] == "g-1"


def test_list_shows_who_signed_what_one_daemon_redeemed(costctl, daemon):
    daemon.answers["ListGrants"] = pb.ListGrantsResponse(
        grants=[pb.GrantStatus(grant_id="g-1", issuer="ann", subject="PR 41", uses_max_count=1)]
    )
    assert "issued by ann to PR 41" in costctl("override", "list").out
    daemon.answers["ListGrants"] = pb.ListGrantsResponse()
    assert "no override grant was redeemed" in costctl("override", "list").out
