"""Results in other people's formats: rows as files of many forms, a lake as a database file.

Notable: what is written is read as a stream, so that it may be larger than memory.
"""
