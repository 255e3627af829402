"""The command line: click, and nothing but the command line.

Charter: the only room that knows click and rich and the only one that prints.  ``main.py`` turns
errors into text and exit codes; ``options.py`` holds the options that commands share;
``render.py`` makes tables, CSV and the JSON envelope; each command is one ``<verb>_cmd.py`` whose
click function parses, calls one plain function of ``imgtools.workflow`` and renders what it
returns.  Command modules import ``imgtools.workflow`` inside the function, so that
``imgtools --help`` starts fast and works with no binding installed.
"""

import gc

# A program that runs for a second makes little garbage, and many objects that stay: looking for
# garbage among them was a sixth of the time that it takes to start.
gc.set_threshold(50_000, 20, 20)
