"""Door to dissect: read the files of a guest in this process, without an appliance.

Charter: the only importer of ``dissect``; implements `model.Engine`.  Each parser is imported only
when a magic number calls for it (start-up time).  Every answer is certain or refused: what is
unsupported, unclean or damaged raises a `DirectError`, and *auto* then takes the appliance.  A
foreign exception never leaves the room.  Imports no other door.
"""
