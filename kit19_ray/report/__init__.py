"""`kit19 report`: finished runs side by side.

runs        train and evaluate prefixes, found and read
comparison  what differs, what was scored under which conditions, differences with their errors   pure
page        the comparison as Markdown                                                           pure
charts      loss and score charts                                                                matplotlib
html        the page and its charts as one HTML file                                             markdown-it-py
stage       the report folder
"""
