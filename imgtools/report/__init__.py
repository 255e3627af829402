"""Documents made from values: virt-inspector's XML.

Charter: pure functions from records to documents; no reading of images, no printing.
"""
