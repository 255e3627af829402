"""Door to image files: vet headers in pure Python, then (and only then) qemu-img.

Charter: ``vet`` reads an image's header within bounds and opens nothing that the header names;
``chain`` follows a backing chain under the rules of trust and yields `model.Disk`; ``locks`` asks,
without taking a lock, whether another process uses an image; ``qemu`` runs qemu-img with explicit
formats.  No other room reads an image header or runs qemu-img.  Imports no other door.
"""
