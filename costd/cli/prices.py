"""`prices` and `price`: what a model costs, and what one answer of a provider cost."""

import json
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from costd.cli import options, render
from costd.cli.document import emit
from costd.cli.exits import Failure
from costd.cli.sources import read_file
from costd.cli.times import wall_ns
from costd.errors import InvalidAsk
from costd.model.money import format_nusd
from costd.model.policy import PolicySet
from costd.model.price import Price, PriceSource
from costd.policy import load_policy
from costd.pricing import ModelListing, PriceBook, search, usage_from_response

LISTING_COLUMNS = ("model", "name", ">context", "price", "source")
UNIT_COLUMNS = ("unit", ">count", ">adds to the cost")

PolicyOption = Annotated[
    str, typer.Option("--policy", metavar="FILE", help="With this policy's prices and discounts.")
]


def prices(
    text: Annotated[str, typer.Argument(help="Words of a provider, model or name.")],
    *,
    policy: PolicyOption = "",
    limit: options.Limit = 20,
    as_json: options.Json = False,
) -> None:
    """Find models: what they cost, and who says so."""
    listings = search(PriceBook(_policy(policy)), text, limit, wall_ns=wall_ns())
    if as_json:
        emit({"models": [msgspec.to_builtins(listing) for listing in listings]})
        return
    rows = [_listing_row(listing) for listing in listings]
    view = render.listing(
        LISTING_COLUMNS,
        rows,
        nothing=f"the catalogue has no model with {text!r}; try fewer letters",
        truncated=len(listings) == limit,
    )
    render.console().print(view)


def price(
    file: Annotated[str, typer.Argument(help="A JSON response body; - is standard input.")] = "-",
    *,
    provider: Annotated[str, typer.Option("--provider", "-p", help="Found if empty.")] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="Where the body names none.")] = "",
    batch: Annotated[bool, typer.Option("--batch", help="It was a batch call.")] = False,
    policy: PolicyOption = "",
    as_json: options.Json = False,
) -> None:
    """Price a provider's JSON response body, unit by unit."""
    try:
        found_provider, found_model, used = usage_from_response(provider, _body(file))
    except InvalidAsk as error:
        raise Failure(str(error)) from error
    name = model or found_model
    if not name:
        raise Failure("the body does not name its model; add --model")
    book = PriceBook(_policy(policy))
    known = book.find(found_provider, name, wall_ns=wall_ns(), batch=batch)
    if known is None:
        raise Failure(
            f"nobody knows the price of {name!r} at {found_provider or 'any provider'}; look for "
            "it with `costctl prices`, or state one in a policy and add --policy"
        )
    try:
        cost_nusd = known.cost_nusd(used.counts())
    except ValueError as error:
        raise Failure(f"the body's usage cannot be priced: {error}") from error
    lines = breakdown(known, used.counts())
    if as_json:
        emit(_document(known, name, cost_nusd, lines))
    else:
        render.console().print(_view(known, name, cost_nusd, lines))


class UnitCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit added to a cost; parts of it that are priced apart are lines of their own.

    `cost_nusd` is exact, as a decimal: only the sum of all lines is rounded, up.
    """

    unit: str
    count: int
    cost_nusd: str
