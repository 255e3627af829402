"""What a guest is: one tree of files over several filesystems, and what is found in it.

Charter: ``opening`` chooses the engine; ``tree`` resolves paths and symbolic links inside the
guest, written once over `model.FileTree`; ``roots`` finds the systems, ``inspecting`` inspects
each into the records of ``inspection``.  ``linux`` and ``packages`` are parsers with bounds, where
damage costs the field it hits and never the guest.  Imports the doors, never the other way.
"""
