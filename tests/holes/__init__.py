"""Holes of the classes known in this field, planted one at a time into a copy of the tree.

A guard that nothing tests is as good as gone: somebody will simplify it away. So each hole names
the tests that must notice it. `planted/` has them, a file for each class: what is to be replaced in
which file, by what, and who must fail. `make r11` plants all of them, the everyday suite some.

Belongs here: holes, the planting, names that are made to hurt. Never here: a test of a guard, which
stands with the tests of what it guards.
"""
