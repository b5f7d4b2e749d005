"""Jobs: a pipeline whose output is a new dataset, or a new column of one that is there.

Responsible for: `Job`. ``shape`` says which graphs can be a job and how their source is cut,
``work`` is what workers do with a range of it, ``identity`` tells whether a job is still the one
that was begun, ``target`` and ``column`` write and keep how far it is, ``running`` has the order of
things, ``summary`` the counts.

Rules:
- what is written is a pure function of the source, the pipeline and the job's options: the same
  files for any number of workers, and for any number of runs that ended early;
- how far a job is stands in the commit itself, so that "written" and "done" cannot differ;
- every record of the source is counted once: read = used + filtered + skipped.
"""

from __future__ import annotations

from splitpipe.jobs.define import Job, job
from splitpipe.jobs.running import Preview
from splitpipe.jobs.summary import Counts, JobProgress, JobSummary

__all__ = ["Counts", "Job", "JobProgress", "JobSummary", "Preview", "job"]
