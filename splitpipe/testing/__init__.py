"""Conformance suites: what every implementation of a seam has to do, for anyone to subclass.

A suite is a class of plain pytest tests over a factory that the subclass names. It lives in the
package and not among its tests, so that a channel that somebody else writes can be held to the
same rules.
"""
