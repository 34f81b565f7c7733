"""An audit of Python's own standard library, as an Interlock workflow.

The input is on every machine that can run it: the `.py` files of the running interpreter. The plan
is `list`, 64 parallel `parse-NN`, a join (`collect`), three analyses in parallel, an HTML report.

`sources` finds the modules; `syntax`, `complexity` and `measure` read one module; `collect` joins;
`analyses` draws the conclusions; `plots` and `report` show them. None of these knows Celery or
Interlock. `tasks` makes Celery tasks of them and `workflow` a plan of the tasks. Run it with
`python -m examples.stdlib_audit`.
"""
