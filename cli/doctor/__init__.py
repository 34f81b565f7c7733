"""`interlock doctor`: looks for what may lose work in a deployment.

`gathering` asks every part within a bounded time, the checks look at what is known and touch nothing, and `command` prints. Adding
a check is adding one function in a `checks_…` module.
"""
