"""Door to image files: vet headers in pure Python, then (and only then) qemu-img.

Charter: ``vet`` reads an image's header within bounds and opens nothing that the header names;
``chain`` follows a backing chain under the rules of trust and yields `model.Disk`; ``locks`` asks,
without taking a lock, whether another process uses an image; ``qemu`` runs qemu-img with explicit
formats.  No other room reads an image header or runs qemu-img.  Imports no other door.

Decisions: only the format met is loaded (``signature`` tells it, ``vet_FORMAT`` reads it); what is
wrong with an image is a `header.Problem` of its header, and becomes an exception in ``chain``, so
that ``imgtools info`` can show a broken image; where two readers of a format could see different
references (a header extension twice, a VMDK extent over two lines), the image is refused; a
relative data file belongs to the image's folder (qemu takes the working directory's), and every
opener is given the absolute path.  The rules of trust are in docs/info.md.
"""
