"""`prices` and `price`: what a model costs, and what one answer of a provider cost."""

import json
from fractions import Fraction
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from costd.cli import options, render
from costd.cli.breakdown import UnitCost, breakdown
from costd.cli.document import emit
from costd.cli.exits import Failure
from costd.cli.sources import read_file
from costd.cli.times import wall_ns
from costd.errors import InvalidAsk
from costd.model.money import ceil_div, format_nusd
from costd.model.policy import PolicySet
from costd.model.price import Price, PriceSource
from costd.policy import load_policy
from costd.pricing import ModelListing, PriceBook, search, usage_from_response

LISTING_COLUMNS = ("model", ">context", "price", "source")
UNIT_COLUMNS = ("unit", ">count", ">adds to the cost")

PolicyOption = Annotated[
    str, typer.Option("--policy", metavar="FILE", help="With this policy's prices and discounts.")
]


def prices(
    text: Annotated[str, typer.Argument(help="Words of a provider, model or name.")],
    *,
    policy: PolicyOption = "",
    limit: options.Limit = 20,
    in_full: Annotated[
        bool, typer.Option("--full", help="With notes, prices at other times, and links.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Find models: what they cost, and who says so."""
    listings = search(PriceBook(_policy(policy)), text, limit, wall_ns=wall_ns())
    if as_json:
        emit({"models": [msgspec.to_builtins(listing) for listing in listings]})
        return
    rows = [_listing_row(listing, in_full=in_full) for listing in listings]
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


def _body(file: str) -> dict[str, Any]:
    try:
        body = json.loads(read_file(file))
    except (ValueError, RecursionError) as error:
        raise Failure(f"{file}: not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Failure(f"{file}: the response body must be a JSON object")
    return body


def _policy(path: str) -> PolicySet | None:
    return load_policy(path) if path else None


def _document(known: Price, name: str, cost_nusd: int, lines: list[UnitCost]) -> dict[str, Any]:
    return {
        "cost_nusd": cost_nusd,
        "model": name,
        "units": [
            {"unit": line.unit, "count": line.count, "cost_nusd_exact": str(line.cost_nusd)}
            for line in lines
        ],
        "price": {"price_id": known.price_id, **msgspec.structs.asdict(known.source)},
    }


def _view(known: Price, name: str, cost_nusd: int, lines: list[UnitCost]) -> RenderableType:
    rows = [(line.unit, f"{line.count:,}", _exact_usd(line.cost_nusd)) for line in lines]
    head = Text.assemble(render.plain(name, "bold"), " cost ", (format_nusd(cost_nusd), "bold"))
    return Group(
        head,
        render.listing(UNIT_COLUMNS, rows, nothing="nothing was used"),
        render.plain(f"price {known.price_id} of {_source_text(known.source)}", "dim"),
    )


def _exact_usd(nusd: Fraction) -> str:
    """Write a share of a cost; `≈` where it ends between two nano-dollars (shown rounded up)."""
    rounded = format_nusd(ceil_div(nusd.numerator, nusd.denominator))
    return rounded if nusd.denominator == 1 else f"≈{rounded}"


def _listing_row(listing: ModelListing, *, in_full: bool) -> tuple[render.Cell, ...]:
    lines = [render.plain(line) for line in listing.prices or ["no price known"]]
    if listing.deprecated:
        lines.append(Text("deprecated by its provider", style="yellow"))
    origin = f"{listing.source.source} {listing.source.version}" if listing.source else ""
    sources = [render.plain(origin)]
    if in_full:
        notes = filter(None, (*listing.notes, listing.comments))
        lines += [render.plain(" ".join(note.split()), "dim") for note in notes]
        sources += [render.plain(url) for url in listing.urls]
    return (
        f"{listing.provider}/{listing.model}",
        f"{listing.context_window:,}" if listing.context_window else "",
        Text("\n").join(lines),
        Text("\n").join(sources),
    )


def _source_text(source: PriceSource) -> str:
    of = "/".join(filter(None, (source.provider, source.model)))
    return f"{of} by {source.source} {source.version}".strip()
