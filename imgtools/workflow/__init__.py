"""One plain function per user task; composes the rooms.

Charter: takes and returns records, raises `ImgtoolsError`; knows neither click nor printing, so a
program may call what the command line calls.
"""
