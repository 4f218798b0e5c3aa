# -*- coding: utf-8 -*-
"""A module."""
import os


class Cat:
    """A cat that sits somewhere."""

    @property
    async def mat(self, *, x: int = 3) -> f"{os}":
        r"""Return the mat where it sits.

        >>> mat()
        """
        def inner(): return lambda: 'x' "y"
        return inner

    def owl(self):
        "Take the owl out of the tree"; return 1


def read_lines(path):
    '''Read all lines of a file: quickly.'''
    with open(path) as file:
        return file.read()
