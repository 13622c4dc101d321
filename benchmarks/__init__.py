"""The cost of sidelight for its caller, beside a floor, its peers and an idle call.

``python -m benchmarks`` measures everything and checks the budget (ten minutes or so; with
``--readme`` it puts its tables into README.md),
``python -m benchmarks --smoke`` only checks the budget (seconds), and
``pytest benchmarks --benchmark-only`` compares single calls while one works on them.

Machines are noisy and absolute times do not travel. Every measured call is therefore followed by
its control (the same work, undecorated, at the same moment in the same process), what is compared
takes turns in short rounds, and what is judged is a ratio or a difference, never a time; the one
exception is the budget of 10 ms, and that is judged by its difference from the control as well.
"""
