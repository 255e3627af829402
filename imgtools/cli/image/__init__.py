"""The commands of ``imgtools image``: one module per verb."""
