"""Policy file → policy set."""

from hashlib import blake2b
from pathlib import Path

from costd.model.policy import PolicySet
from costd.policy.build import build_policy
from costd.policy.checks import check
from costd.policy.problems import refuse
from costd.policy.reading import problem_at, read_spec
from costd.policy.schema import PolicySpec
from costd.policy.source import read_file, read_source

REVISION_BYTES = 6


def load_policy(path: Path | str) -> PolicySet:
    """Read a policy file.

    Errors:  InvalidPolicy listing every problem as `FILE:LINE: path: what is wrong; what to do`;
             also when the file is missing, too large or not UTF-8.
    """
    return parse_policy(read_file(Path(path)), str(path))


def parse_policy(text: str, name: str) -> PolicySet:
    """Read a policy from its text; `name` stands for the file in messages.

    Ensures: the revision is a hash of the text, so that equal files have equal revisions.
    Errors:  InvalidPolicy, as `load_policy`.
    """
    source = read_source(text, name)
    spec = read_spec(source, PolicySpec)
    problems = [problem_at(source, path, what) for path, what in check(spec)]
    if problems:
        raise refuse(name, problems)
    return build_policy(spec, policy_revision(text))


def policy_revision(text: str) -> str:
    """Name a policy's text: 12 hexadecimal digits of its hash."""
    return blake2b(text.encode(), digest_size=REVISION_BYTES).hexdigest()
