"""Change disks whole or not at all: overlay, look, commit or discard, also across ``kill -9``.

Charter: the only room that writes to an image that exists.  `begin` locks the images and says where
their overlays are to be; whoever does the work (``workflow``) lets the appliance write to these
and ends it; `Transaction.commit` brings them into the images under a record that survives us, and
`recovery` finishes what was interrupted.  Knows nothing of files in guests.  Imports the doors
``appliance`` (block nodes), ``image`` (locks); not ``guest``.

Decisions: an image is written only by ``qemu-img commit``, from an overlay that is complete and on
its storage, and only after a record beside the image says so: done again from the start, a commit
gives the same result, so that an interrupted one is simply repeated.  Until then the image is not
touched.  The overlay keeps what was committed until the image is on its storage (``-d``).
A record is believed only if it is ours (owner, mode) and still speaks of the same file (inode).
"""
