"""Change the content of text files of a guest: Perl-style expressions, line endings kept.

``expression`` parses and runs ``-e`` (``scanner`` reads its pieces, ``transliteration`` is y///);
``patterns`` turns Perl's regular expressions and replacements into Python's; ``lines`` cuts a file
into lines and puts it together again.
"""
