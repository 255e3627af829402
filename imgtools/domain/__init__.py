"""Door to libvirt: domains and their disks, read from the domain XML.

Charter: the only importer of ``libvirt``; parses XML with lxml, entities and network off; turns
libvirt's errors into `LibvirtError` with a cure.  Imports no other door.
"""
