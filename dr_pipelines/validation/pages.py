"""The page of a check's suites, kept where the subject keeps pages."""

from __future__ import annotations

from collections.abc import Sequence

from dr_pipelines.errors import DrError
from dr_pipelines.validation.subject import Subject
from dr_pipelines.validation.suites import SuiteResult


def keep_page(copy: Subject, what: str, results: Sequence[SuiteResult]) -> str | None:
    """Where it lies, or why it does not: a store that cannot be written changes no verdict. None where no pages are
    kept."""
    if copy.keep_page is None or not results:
        return None
    # Imported here: it takes seconds.
    from dr_pipelines.validation.expectations import data_docs

    page = data_docs(f"{what} of a copy of {copy.source}", results)
    try:
        return copy.keep_page(what, page)
    except DrError as error:
        return f"not kept: {error.message}"
