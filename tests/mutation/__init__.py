"""`make mutation`: good repositories and restored copies are damaged, by a seed, and whoever should notice is asked.

A damage that nobody notices is a hole in the checks. What no check can see is in the table too, with the reason.
"""
