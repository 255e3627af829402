"""Values that cross the doors: disks, volumes, filesystems, file metadata.

Charter: frozen records with no behaviour beyond what follows from their own fields; imported by
every room above ``errors``.  The doors (``direct``, ``appliance``, ``image``, ``domain``) must not
import one another, so what they exchange is defined here, below all of them.

Conventions, everywhere in imgtools:

* Guest paths and names are ``bytes`` (they may hold anything but NUL, and ``/`` for names);
  host paths are ``pathlib.Path``.  The type checker keeps the two apart.
* Sizes are ``int`` bytes unless the name says otherwise; times are ``int`` nanoseconds since
  the epoch.
* Devices have the names that libguestfs gives them (canonical form): ``/dev/sda``,
  ``/dev/sda1``, ``/dev/md127``, ``/dev/VG/LV``, ``/dev/mapper/NAME`` for an opened LUKS volume
  and ``btrfsvol:/dev/sda2/PATH`` for a btrfs subvolume.
"""
