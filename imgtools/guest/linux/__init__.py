"""What a Linux guest's own files say about it.

Charter: one small reader per question (release, devices, boot, users …), each over a `GuestTree`
and a `Findings` that takes its warnings.  Nothing here knows an engine, opens a host file or trusts
a word of what it reads.
"""
