"""Prices of models: the catalogue's and the policy's own (docs/adr/0004-prices-are-integers.md).

Importing this package loads the catalogue; programs that price nothing should not import it.
"""

from costd.pricing.book import PriceBook, provider_names
from costd.pricing.catalogue import CATALOGUE_VERSION
from costd.pricing.listing import ModelListing, search
from costd.pricing.responses import usage_from_response
from costd.pricing.tiers import tier_warnings
from costd.pricing.units import usage_problem

__all__ = [
    "CATALOGUE_VERSION",
    "ModelListing",
    "PriceBook",
    "provider_names",
    "search",
    "tier_warnings",
    "usage_from_response",
    "usage_problem",
]
