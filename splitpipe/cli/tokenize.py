"""``splitpipe tokenize``: the text of any dataset into packed samples of tokens.

Responsible for: the command line of `splitpipe.tokenize`.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from splitpipe.cli.sources import (
    AsJson,
    Bar,
    Bins,
    Compression,
    Dictionary,
    FormatName,
    IndexDir,
    Options,
    Overwrite,
    Target,
    Where,
    Workers,
    compression_of,
    opened,
    options_of,
    say_json,
)
from splitpipe.tokens import tokenize as tokenize_dataset

__all__ = ["tokenize"]


def tokenize(
    source: Where,
    target: Target,
    tokenizer: Annotated[str, typer.Option(help="Path of a tokenizer.json.")],
    length: Annotated[
        int, typer.Option(min=0, help="Tokens of a sample; 0 for a sample of its own a document.")
    ] = 2048,
    eos: Annotated[str | None, typer.Option(help="The token after a document, or its id.")] = None,
    bos: Annotated[str | None, typer.Option(help="The token before a document, or its id.")] = None,
    pad: Annotated[
        str | None, typer.Option(help="The token that fills the last sample, or its id.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column or member that is the text.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the tokens; the smallest that holds them unless said.")
    ] = None,
    remainder: Annotated[
        str, typer.Option(help="drop, keep or pad the tokens that fill no sample.")
    ] = "drop",
    loss: Annotated[
        str | None, typer.Option(help="Part types that count for the loss, with commas between.")
    ] = None,
    arrays: Annotated[
        str | None, typer.Option(help="document, position, local_position, with commas between.")
    ] = None,
    workers: Workers = 1,
    bins: Bins = None,
    compression: Compression = None,
    dictionary: Dictionary = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add to the samples that are there.")
    ] = False,
    overwrite: Overwrite = False,
    form: FormatName = None,
    index_dir: IndexDir = None,
    format_options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Tokenize the text of a dataset and pack it into samples of one length."""
    options: dict[str, Any] = {
        "bos": _token(bos),
        "pad": _token(pad),
        "dtype": dtype,
        "remainder": remainder,
        "loss": loss.split(",") if loss else None,
        "arrays": arrays.split(",") if arrays else (),
        "bins": bins,
        "compression": None
        if compression == "none"
        else compression_of(compression, dictionary=dictionary),
        "append": append,
        "overwrite": overwrite,
    }
    given = options_of(format_options)
    with Bar("indexing") as bar, opened(source, form, index_dir, given, bar) as dataset:
        report = tokenize_dataset(
            dataset,
            target,
            tokenizer,
            length=length or None,
            eos=_token(eos),
            text=text,
            workers=workers,
            progress=lambda done, total: bar.show_step("tokenizing", done, total),
            **options,
        )
    if as_json:
        say_json(report.to_json())
        return
    rest = f", {report.dropped:,} tokens at the end left out" if report.dropped else ""
    padded = f", {report.padding:,} tokens of padding" if report.padding else ""
    print(
        f"{report.path}: {report.documents:,} documents, {report.tokens:,} tokens of "
        f"{report.dtype} in {report.samples:,} samples{rest}{padded}"
    )


def _token(text: str | None) -> int | str | None:
    """A token as it is written, or its id.

    Example:
        >>> _token("<eos>"), _token("2"), _token(None)
        ('<eos>', 2, None)
    """
    return int(text) if text is not None and text.isdecimal() else text
