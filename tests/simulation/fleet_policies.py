"""The policies of the fleet's simulation: one shape, limits that run out, and two fail modes."""

from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from costd.engine.rules import Rules
from costd.grants import GrantClaims, issue
from costd.grants.keys import public_text
from costd.policy import parse_policy
from costd.pricing import PriceBook

CENT = 10_000_000
"""Nano-USD; most calls hold some of these, and a few odd ones."""
USERS = ("ann", "bob")
RUNS = ("one", "two")
LIMITS_CENTS = (60, 120, 250)
"""Of the total budget; the others are shares of it."""
CLIENTS_LIMITS_CENTS = (400, 1_000, 4_000)
"""The same where clients draw by themselves, which needs more than a few calls."""
CALLS_PER_MINUTE = 30
CLIENTS_CALLS_PER_MINUTE = 300
FAIL_MODES = ("closed", "closed", "closed", "closed", "safe", "open")


LEAD = Ed25519PrivateKey.from_private_bytes(bytes(32))
"""Signs override grants; always the same, so that the same seed gives the same order."""


def grant_token(seed):
    """Sign a grant of a few uses that nobody may redeem beyond what the coordinator lends."""
    return issue(
        LEAD,
        "lead",
        GrantClaims(
            jti=f"grant-{seed}",
            iss="lead",
            sub="ann",
            aud=(),
            nbf=1_700_000_000,
            iat=1_700_000_000,
            exp=1_800_000_000,
            reason="release night",
            scope={},
            task_classes=("review",),
            amount_nusd=25 * CENT,
            uses=5,
            passes_kill=True,
        ),
    )


def policy_text(limit_cents, *, fail_mode, halts, calls_count=CALLS_PER_MINUTE):
    """Write one."""
    halt = ", steps: [{at: 70%, do: [alert]}, {at: 95%, do: [halt]}]" if halts else ""
    return (
        "version: 1\n"
        "task_classes:\n"
        "  draft: {ttl: 40s}\n"
        "  review: {critical: true, ttl: 40s}\n"
        "default_task_class: draft\n"
        "budgets:\n"
        f"  - {{id: all, window: total, limit: ${limit_cents / 100:.2f}}}\n"
        f"  - {{id: user, per: user, window: day, limit: ${limit_cents * 0.6 / 100:.2f}, reserve: 20%{halt}}}\n"
        f"  - {{id: calls, window: minute, limit: {calls_count} calls}}\n"
        f'  - {{id: run, window: run, match: {{run: "*"}}, limit: ${limit_cents * 0.3 / 100:.2f}}}\n'
        "  - {id: seen, per: user, window: total}\n"
        "allowance: {share: 25%}\n"
        f"grant_keys: [{{id: lead, public_key: {public_text(LEAD)}}}]\n"
        f"fleet: {{fail_mode: {fail_mode}, lease_wait_ms: 1000}}\n"
    )


@lru_cache(maxsize=256)
def parsed(text):
    return parse_policy(text, "policy")


@lru_cache(maxsize=256)
def compiled(text):
    policy = parsed(text)
    return Rules(policy, PriceBook(policy), in_fleet=True)
