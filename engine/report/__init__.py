"""`report`: how good a data set is, as one page for people and one JSON file for programs.

sample.py   which images are looked at        angles.py      what became of rows, and where they began
measure.py  what is measured of them          pictures.py    thumbnails inside the page
words.py    what each figure means            provenance.py  where all of it comes from
page.py     the page                          report.py      all of these in turn
"""
