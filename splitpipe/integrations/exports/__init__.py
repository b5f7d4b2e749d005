"""Datasets in the formats of others: MDS, WebDataset, Parquet, Hugging Face.

Responsible for: `export`. ``job`` has the order of things, ``folder`` makes what is written appear
at once or not at all, ``base`` is the seam that each format fills: ``mds``, ``webdataset``, and
``columnar`` for Parquet and Hugging Face.
"""

from __future__ import annotations

from splitpipe.integrations.exports.job import ExportOptions, ExportReport, export

__all__ = ["ExportOptions", "ExportReport", "export"]
