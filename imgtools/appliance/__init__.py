"""Door to guestfs: everything the direct engine cannot do, in a sealed virtual machine.

Charter: the only importer of ``guestfs``; implements `model.Engine`.  ``probe`` finds out by trying
whether KVM works and remembers the answer; ``launch`` starts one appliance with every disk added as
our own overlay with explicit formats (libguestfs's read-only mode is never used: it probes guest
bytes); ``tree`` reads files.  guestfs raises bare RuntimeError text, which is translated here and
nowhere else.  Imports no other door.
"""
