"""What a policy may say but probably does not mean."""

from collections.abc import Iterator

from costd.model.policy import Budget, PolicySet, WindowKind


def policy_warnings(policy: PolicySet) -> list[str]:
    """List what its author should look at again; nothing here stops the policy from loading.

    Prices are not judged here: `costctl policy check` does that, since it has the catalogue.
    """
    return [
        *_whole(policy),
        *_task_classes(policy),
        *(warning for budget in policy.budgets for warning in _budget(policy, budget)),
        *_model_rules(policy),
    ]


def _whole(policy: PolicySet) -> Iterator[str]:
    if policy.shadow:
        yield "shadow: the whole policy is in shadow, so nothing is ever refused"
    if not policy.budgets and not policy.unmatched_allow:
        yield "budgets: there are none and unmatched is deny, so every ask is refused"
    if policy.tiers and not policy.default_tier:
        yield (
            "default_tier: not set, so asks that name neither tier nor model begin at the first "
            f"tier, {policy.tiers[0].name}"
        )


def _task_classes(policy: PolicySet) -> Iterator[str]:
    for task_class in policy.task_classes.values():
        if task_class.critical and not task_class.min_tier:
            yield (
                f"task_classes.{task_class.name}: critical without min_tier, so nothing says "
                "which tier it may not be taken below"
            )
    if not policy.task_classes:
        yield "task_classes: there are none, so no ask can name its class; add at least one"
    elif not policy.default_task_class:
        yield "default_task_class: not set, so asks must name their class"


def _budget(policy: PolicySet, budget: Budget) -> Iterator[str]:
    path = f"budgets.{budget.budget_id}"
    if budget.reserve and not any(each.critical for each in policy.task_classes.values()):
        yield f"{path}: keeps a reserve, but no task class is critical, so nobody can draw it"
    if budget.window.kind is WindowKind.RUN and not _sure_of_run(budget):
        yield (
            f"{path}: asks without a run label share one budget that never ends; add "
            'missing: deny, or match: {run: "*"}'
        )
    ladder = len(policy.tiers)
    downward = any(step.tiers_down or step.economy for step in budget.steps)
    if downward and ladder < 2:  # noqa: PLR2004 -- one tier is no ladder
        yield f"{path}: steps lead to lower tiers, but there are fewer than two tiers"
    if any(step.switch_provider for step in budget.steps) and not _has_two_providers(policy):
        yield f"{path}: a step switches provider, but no tier has models of two providers"


def _sure_of_run(budget: Budget) -> bool:
    required = any(match.key == "run" and not match.negated for match in budget.selector.matches)
    return budget.missing_deny or required


def _has_two_providers(policy: PolicySet) -> bool:
    return any(len({model.provider for model in tier.models}) > 1 for tier in policy.tiers)


def _model_rules(policy: PolicySet) -> Iterator[str]:
    for rule in policy.model_rules:
        for pattern in set(rule.allow) & set(rule.forbid):
            yield f"model_rules.{rule.rule_id}: {pattern} is both allowed and forbidden"
