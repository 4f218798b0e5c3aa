"""The workplace of `test_pages`, for the other tests of the documentation."""

from tests.docs.test_pages import hub as hub
from tests.docs.test_pages import workplace as workplace
