"""Seeds of the kernel's random numbers."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="random-seed",
    heading="Remove the seeds of random numbers",
    description="Clones that begin with one seed may make the same keys. systemd, OpenRC and "
    "boot loaders write a new one.",
    order=95,  # after customize: also what its programs make
    plan=lambda guest, _: remove(
        guest,
        "/var/lib/systemd/random-seed",
        "/var/lib/random-seed",
        "/var/lib/urandom/random-seed",
        "/var/lib/misc/random-seed",
        "/var/lib/seedrng/*",
        "/boot/loader/random-seed",
        "/boot/efi/loader/random-seed",
        "/efi/loader/random-seed",
    ),
)
