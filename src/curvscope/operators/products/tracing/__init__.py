"""A linear map traced once, cut in two and simplified: what is done once per mini-batch, and what every vector pays."""

from __future__ import annotations
