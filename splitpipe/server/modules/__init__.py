"""Modules: filters, categorizers, collaters and preprocessors that the operator provides.

Responsible for: what a module is, which there are, and what their parameters mean. A module is a
function or a class in a file of the modules folder, marked by one of the four decorators that this
package gives.

Rules:
- the server itself never imports a file of that folder: what is in it is found out by a short-lived
  process, and used by the processes of iterations and tasks;
- code comes from that folder alone, and what was read there is used until the operator asks for a
  reload; an iteration keeps the code that it began with.

Example:
    >>> from splitpipe.server.modules import filter
    >>> @filter
    ... def long_enough(sample, *, least: int = 10) -> bool:
    ...     '''Samples with a text of some length.'''
    ...     return len(sample["text"]) >= least
    >>> long_enough({"text": "short"})
    False
"""

from __future__ import annotations

from splitpipe.server.modules.marking import categorizer, collater, filter, preprocessor

__all__ = ["categorizer", "collater", "filter", "preprocessor"]
