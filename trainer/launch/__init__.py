"""Start the worker processes on one machine or many."""
