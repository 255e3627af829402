"""What `imgtools customize` and sysprep's operation ``customize`` can do to a guest.

Charter: ``table`` joins the rows of all groups; a row (`base.Custom`) is one option of the command
line and the function that makes a step (`imgtools.guest.steps.Step`) of its value.  Nothing here
knows click.  ``chroot`` runs programs of the guest; steps that need one call `chroot.run`.
"""
