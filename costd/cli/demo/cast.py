"""Who asks in the demo: projects with their agents, what they do and how large their calls are."""

import random
from dataclasses import dataclass
from itertools import cycle

from costd.cli.demo.calls import PlannedCall, drawn
from costd.cli.demo.journal import Usage

USERS = (
    "ada", "ben", "cleo", "dara", "eli", "fay", "gus", "hana", "ivo", "june", "kai", "lena",
    "milo", "nora", "omar", "pia", "quin", "rosa", "sam", "tess", "uma", "vito", "wren", "yara",
    "abel", "bea", "cyd", "dion", "enid", "finn", "gwen", "hugo", "iris", "jon", "kira", "leo",
)  # fmt: skip
OPUS = ("anthropic", "claude-opus-4-5")
GPT = ("openai", "gpt-5.2")
HAIKU = ("anthropic", "claude-haiku-4-5")
MINI = ("openai", "gpt-5-mini")
FAILS_BP = 800
"""Share of attempts at which a provider fails."""
USED_BP = (5_500, 9_000)
"""How much of the output they allow themselves agents really get."""
CACHE_HIT_BP = 1_500


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Agents of one project that behave alike; `pause_s` lies between two calls of one agent."""

    name: str
    project: str
    agents_count: int
    work: tuple[tuple[str, tuple[str, str], int], ...]
    """(task class, model, how often)."""
    prompt_tokens: tuple[int, int]
    max_output_tokens: tuple[int, int]
    pause_s: tuple[float, float]
    holds_grant: bool = False


EVERYDAY = (
    ("chat", HAIKU, 6),
    ("chat", MINI, 4),
    ("draft", MINI, 3),
    ("research", GPT, 1),
    ("testing", HAIKU, 1),
    ("code_review", GPT, 1),
)

GROUPS = (
    *(
        Group(
            name=name,
            project=name,
            agents_count=count,
            work=EVERYDAY,
            prompt_tokens=(200, 1_500),
            max_output_tokens=(120, 400),
            pause_s=(0.25, 0.8),
        )
        for name, count in (("atlas", 70), ("beacon", 60), ("comet", 50))
    ),
    Group(
        name="reviewers",
        project="atlas",
        agents_count=6,
        work=(("security_review", OPUS, 1),),
        prompt_tokens=(1_500, 3_000),
        max_output_tokens=(300, 500),
        pause_s=(0.4, 0.9),
        holds_grant=True,
    ),
    Group(
        name="launch",
        project="launch",
        agents_count=70,
        work=(("draft", OPUS, 7), ("chat", HAIKU, 1), ("code_review", OPUS, 1)),
        prompt_tokens=(1_500, 4_000),
        max_output_tokens=(500, 900),
        pause_s=(0.15, 0.5),
    ),
    Group(
        name="lab",
        project="lab",
        agents_count=40,
        work=(("research", OPUS, 1),),
        prompt_tokens=(4_000, 9_000),
        max_output_tokens=(900, 1_400),
        pause_s=(0.5, 1.2),
    ),
)


class Agent:
    """One agent: always the same user, each call drawn anew."""

    def __init__(self, group: Group, number: int, *, user: str, seed: int) -> None:
        self.group = group
        self.name = f"{group.name}-{number:03}"
        self.user = user
        self._draw = drawn(seed, "agent", self.name)

    def pause_s(self) -> float:
        """Draw how long until the next call."""
        return self._draw.uniform(*self.group.pause_s)

    def next_call(self, grant: str) -> PlannedCall:
        """Draw the next call."""
        draw, group = self._draw, self.group
        task_class, (provider, model), _ = draw.choices(
            group.work, [weight for _, _, weight in group.work]
        )[0]
        bound = draw.randint(*group.max_output_tokens)
        # Agents guess their prompt's length; the provider counts a little more or less.
        prompt_tokens = draw.randint(*group.prompt_tokens)
        return PlannedCall(
            labels={"project": group.project, "user": self.user, "agent": self.name},
            task_class=task_class,
            provider=provider,
            model=model,
            prompt_tokens=prompt_tokens,
            max_output_tokens=bound,
            usage=Usage(
                prompt_tokens=prompt_tokens * draw.randint(92, 103) // 100,
                output_tokens=bound * draw.randint(*USED_BP) // 10_000,
            ),
            override_grant=grant if group.holds_grant else "",
            lasts_s=draw.uniform(0.05, 0.35),
            attempts_failed=_failures(draw),
            cache_hit=draw.randrange(10_000) < CACHE_HIT_BP,
        )


def _failures(draw: random.Random) -> int:
    count = 0
    while draw.randrange(10_000) < FAILS_BP:
        count += 1
    return count


def agents(seed: int) -> list[Agent]:
    """Make everyone who takes part; each user has about as many agents as any other."""
    users = cycle(USERS)
    return [
        Agent(group, number, user=next(users), seed=seed)
        for group in GROUPS
        for number in range(group.agents_count)
    ]
