"""Run folders: opened, locked, resumed, finished, and what they were made from."""
