"""Tokens: text of any dataset, packed into samples of one length.

Responsible for: `tokenize`, and `token_info`, which tells what a dataset of tokens is made of.
The way of a text: ``texts`` takes it out of a record, ``encoder`` makes ids of it, ``blocks`` joins
the documents of a block (in a worker, if there are any), ``packer`` cuts the stream of all blocks
into samples, ``output`` writes them. ``packing`` says what samples look like, ``job`` puts it all
together.
"""

from __future__ import annotations

from splitpipe.tokens.job import TokenizeOptions, TokenReport, tokenize
from splitpipe.tokens.output import token_info

__all__ = ["TokenReport", "TokenizeOptions", "token_info", "tokenize"]
