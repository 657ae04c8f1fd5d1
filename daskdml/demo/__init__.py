"""What ``daskdml demo`` does: fit real, generated or the user's data and set the results beside scikit-learn's.

`story` tells it in order; `tasks` makes bundled and generated data, `table` reads a user's file, `contest` fits both
libraries on the same rows, and `show` turns results into a terminal table and an HTML page.
"""
