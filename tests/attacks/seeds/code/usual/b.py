"""B."""


def écrit(猫):
	"""Écrit une phrase — deux fois."""
	return f"{猫!r:>{10}}"
