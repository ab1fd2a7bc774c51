"""Policies: YAML files in, immutable `PolicySet`s out."""

from costd.policy.advice import policy_warnings
from costd.policy.diff import Change, CounterFate, diff
from costd.policy.expectations import load_expectations
from costd.policy.load import load_policy, parse_policy

__all__ = [
    "Change",
    "CounterFate",
    "diff",
    "load_expectations",
    "load_policy",
    "parse_policy",
    "policy_warnings",
]
