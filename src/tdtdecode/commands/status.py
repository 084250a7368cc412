"""The exit statuses of the commands."""

DONE = 0
SOME_FAILED = 1
WRONG_USAGE = 2
