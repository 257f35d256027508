"""Coursework from one master: release it, and grade what comes back.

    masters      read a master, and refuse one that would not work        release   the students' and the instructor's notebooks
    submissions  find what was handed in, put the locked cells back       feedback  one page a student
    wire, gate   values between the student's process and the checker's   summary   the CSV and the picture
    student      the process that runs a student's cells, confined        grade     a class, resumed where it stopped
    checker      the process that runs the tests, outside of it           carry     errors carried forward
    sandbox, kernel, hook   what confines the student's process          authoring what an author runs while writing

A student's code never shares a process with the tests: it is asked for values through a pipe, and cannot touch what judges them.
Needs the extra ``teach`` (nbgrader); nothing below this package imports it.
"""

from __future__ import annotations
