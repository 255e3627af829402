"""The bundled sysprep operations, one file each (none yet)."""
