"""`interlock dev` and the embedded servers that it starts."""
