"""imgtools: open virtual-machine disk images while the guest is off.

Charter: the package root holds the version and nothing else, so that importing it is free.
"""

__version__ = "0.1.0"
