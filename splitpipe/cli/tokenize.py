"""``splitpipe tokenize``: the text of any dataset into packed samples of tokens.

Responsible for: the command line of `splitpipe.tokenize`.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from splitpipe.cli.sources import (
    AsJson,
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
    progress,
    say_json,
)
from splitpipe.tokens import tokenize as tokenize_dataset
from splitpipe.tokens.job import TokenReport

__all__ = ["as_text", "tokenize"]


Tokenizer = Annotated[str, typer.Option(help="Path of a tokenizer.json.")]
Length = Annotated[
    int, typer.Option(min=0, help="Tokens of a sample; 0 for a sample of its own a document.")
]
Eos = Annotated[str | None, typer.Option(help="The token after a document, or its id.")]
Bos = Annotated[str | None, typer.Option(help="The token before a document, or its id.")]
Pad = Annotated[str | None, typer.Option(help="The token that fills the last sample, or its id.")]
Text = Annotated[str | None, typer.Option(help="Column or member that is the text.")]
Dtype = Annotated[
    str | None, typer.Option(help="Of the tokens; the smallest that holds them unless said.")
]
Remainder = Annotated[str, typer.Option(help="drop, keep or pad the tokens that fill no sample.")]
Loss = Annotated[
    str | None, typer.Option(help="Part types that count for the loss, with commas between.")
]
Arrays = Annotated[
    str | None, typer.Option(help="document, position, local_position, with commas between.")
]
OnError = Annotated[str, typer.Option(help="raise, or skip records that cannot be tokenized.")]
Append = Annotated[bool, typer.Option("--append", help="Add to the samples that are there.")]


def tokenize(
    source: Where,
    target: Target,
    tokenizer: Tokenizer,
    length: Length = 2048,
    eos: Eos = None,
    bos: Bos = None,
    pad: Pad = None,
    text: Text = None,
    dtype: Dtype = None,
    remainder: Remainder = "drop",
    loss: Loss = None,
    arrays: Arrays = None,
    on_error: OnError = "raise",
    workers: Workers = 1,
    bins: Bins = None,
    compression: Compression = None,
    dictionary: Dictionary = False,
    append: Append = False,
    overwrite: Overwrite = False,
    form: FormatName = None,
    index_dir: IndexDir = None,
    format_options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Tokenize the text of a dataset and pack it into samples of one length; resumable."""
    how = compression_of(compression, dictionary=dictionary)
    packing = {"bos": _token(bos), "pad": _token(pad), "dtype": dtype, "remainder": remainder}
    aux = {"loss": _listed(loss) or None, "arrays": _listed(arrays)}
    writing = {"bins": bins, "append": append, "overwrite": overwrite}
    options: dict[str, Any] = {**packing, **aux, **writing}
    options["compression"] = None if how == "none" else how
    options["length"], options["eos"] = length or None, _token(eos)
    options["on_error"] = on_error
    given = options_of(format_options)
    with progress("indexing") as bar, opened(source, form, index_dir, given, bar) as dataset:
        options["progress"] = lambda done, total: bar.show_step("tokenizing", done, total)
        report = tokenize_dataset(dataset, target, tokenizer, text=text, workers=workers, **options)
    if as_json:
        say_json(report.to_json())
    else:
        print(as_text(report))
        for fault in report.faults:
            print(f"skipped: {fault}", file=sys.stderr)


def as_text(report: TokenReport) -> str:
    """A report as a line for people."""
    rest = f", {report.dropped:,} tokens at the end left out" if report.dropped else ""
    skipped = f", {report.skipped:,} skipped" if report.skipped else ""
    resumed = f"; went on at record {report.resumed_at:,}" if report.resumed_at else ""
    padded = f", {report.padding:,} tokens of padding" if report.padding else ""
    return (
        f"{report.path}: {report.documents:,} documents{skipped}, {report.tokens:,} tokens of "
        f"{report.dtype} in {report.samples:,} samples{rest}{padded}{resumed}"
    )


def _listed(text: str | None) -> list[str]:
    return text.split(",") if text else []


def _token(text: str | None) -> int | str | None:
    """A token as it is written, or its id.

    Example:
        >>> _token("<eos>"), _token("2"), _token(None)
        ('<eos>', 2, None)
    """
    return int(text) if text is not None and text.isdecimal() else text
