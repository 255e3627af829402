"""Read the files of a guest in this process, without an appliance; the door to dissect.

Charter: the only importer of ``dissect``; implements `model.Engine`.  dissect is used where its
answers are certain, checked on the way; where it skips damage in silence or misreads (each module
says how), the structures are read here by the kernel's rules.  Each parser is imported only when
a magic number calls for it (start-up time).  Every answer is certain or refused: what is
unsupported, unclean or damaged raises a `DirectError`, and *auto* then takes the appliance.  A
foreign exception never leaves the room.  Imports no other door.
"""
