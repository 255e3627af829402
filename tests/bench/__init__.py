"""Side-by-side timings against the Debian virt-* tools; run with ``make bench``."""
